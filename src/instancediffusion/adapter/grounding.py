"""`Grounding`: all that the UNet needs to know of a batch of scenes, computed once and handed down each call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from instancediffusion.adapter.relative_values import RelativeFeatures
from instancediffusion.conditioning import InstanceMaskRule, LocationTensors
from instancediffusion.conditioning.attention_mask import attention_bias
from instancediffusion.errors import ModelError


@dataclass(frozen=True, eq=False)
class Grounding:
    """Keys and values of the grounding tokens for every layer, and who may see them.

    Handed to the UNet as `cross_attention_kwargs={"grounding": grounding}`; nothing of it is stored on a module.

    Attributes:
        layers: the gated self-attention layers by name (shared, not copied).
        keys_values: by the same names, keys and values (B, T, C) of the tokens.
        log_weight: (B, T), see `GroundingTokens`.
        slot: (B, T), see `GroundingTokens`.
        kind: (B, T), see `GroundingTokens`.
        locations: locations of the B images, for the attention mask.
        instance_mask: the rule of the attention mask.
        scale: the grounding scale of this step; at 0 the layers are skipped altogether.
        cells: makes the cell features, for adapters that have them; see `CellFeatures`.
        relative: makes the box-relative features, for adapters that have them; see `RelativeFeatures`.
        captions: (B, N, caption_dim) pooled caption features, kept for `cells` and `relative` only.
        extents: (B, N, 4) how far the instances reach, told or guessed, for `cells` only.
        map_size: (height, width) of the feature map of the current layer; handed down by its transformer.
        ran: takes the names of the gated layers as they run, for a caller who wants to know; None = nobody does.
    """

    layers: Mapping[str, nn.Module]
    keys_values: Mapping[str, tuple[Tensor, Tensor]]
    log_weight: Tensor
    slot: Tensor
    kind: Tensor
    locations: LocationTensors
    instance_mask: InstanceMaskRule = "none"
    scale: float = 1.0
    cells: nn.Module | None = None
    relative: RelativeFeatures | None = None
    captions: Tensor | None = None
    extents: Tensor | None = None
    map_size: tuple[int, int] | None = None
    ran: list[str] | None = field(default=None, repr=False)
    # Attention biases by feature map size and type, cell features by size; filled on first use, shared by copies of the
    # same rows.
    _biases: dict[tuple[Any, ...], Tensor | None] = field(default_factory=dict, repr=False)
    _features: dict[tuple[int, int], Tensor] = field(default_factory=dict, repr=False)
    _relative: dict[tuple[int, int], Tensor] = field(default_factory=dict, repr=False)

    @property
    def batch_size(self) -> int:
        """B, the number of images."""
        return self.log_weight.shape[0]

    def scaled(self, scale: float) -> Grounding:
        """The same grounding at another scale; shares all tensors."""
        return replace(self, scale=float(scale))

    def for_map(self, height: int, width: int) -> Grounding:
        """The same grounding for a feature map of (height, width); shares all tensors."""
        return replace(self, map_size=(height, width))

    def noting(self) -> Grounding:
        """The same grounding with an empty list for the names of the layers that run."""
        return replace(self, ran=[])

    def select(self, rows: Sequence[int] | Tensor) -> Grounding:
        """The images `rows`, in that order, without token columns that none of them uses."""
        index = torch.as_tensor(rows, dtype=torch.long, device=self.log_weight.device)
        log_weight = self.log_weight[index]
        columns = (log_weight > -torch.inf).any(0).nonzero()[:, 0]

        def take(value: Tensor) -> Tensor:
            return value[index][:, columns]

        return replace(
            self,
            keys_values={name: (take(k), take(v)) for name, (k, v) in self.keys_values.items()},
            log_weight=take(self.log_weight),
            slot=take(self.slot),
            kind=take(self.kind),
            locations=self.locations.select(index),
            captions=None if self.captions is None else self.captions[index],
            extents=None if self.extents is None else self.extents[index],
            _biases={},
            _features={},
            _relative={},
        )

    @staticmethod
    def cat(parts: Sequence[Grounding]) -> Grounding:
        """Join batches of one adapter; images with fewer tokens get hidden ones."""
        first = parts[0]
        if any(p.layers is not first.layers or p.instance_mask != first.instance_mask for p in parts):
            raise ValueError("cat: the parts come from different adapters or attention mask rules")
        width = max(p.log_weight.shape[1] for p in parts)

        def join(values: Sequence[Tensor], fill: float = 0.0) -> Tensor:
            def widen(value: Tensor) -> Tensor:
                return functional.pad(value, [0, 0] * (value.dim() - 2) + [0, width - value.shape[1]], value=fill)

            return torch.cat([widen(value) for value in values])

        return replace(
            first,
            keys_values={
                name: (join([p.keys_values[name][0] for p in parts]), join([p.keys_values[name][1] for p in parts]))
                for name in first.keys_values
            },
            log_weight=join([p.log_weight for p in parts], -torch.inf),
            slot=join([p.slot for p in parts], -1),
            kind=join([p.kind for p in parts]),
            locations=LocationTensors.cat([p.locations for p in parts]),
            captions=None if first.captions is None else _cat_slots([p.captions for p in parts]),
            extents=None if first.extents is None else _cat_slots([p.extents for p in parts]),
            _biases={},
            _features={},
            _relative={},
        )

    def bias(self, cells: int, dtype: torch.dtype) -> Tensor | None:
        """The additive attention bias of a feature map with `cells` cells; see `attention_bias`."""
        size = self._map_size(cells)
        key = (size, dtype)
        if key not in self._biases:
            self._biases[key] = attention_bias(
                self.instance_mask,
                self.locations,
                size,
                log_weight=self.log_weight,
                slot=self.slot,
                kind=self.kind,
                dtype=dtype,
                extents=self.extents,
            )
        return self._biases[key]

    def cell_features(self, cells: int) -> Tensor | None:
        """The features of the cells of a feature map with `cells` cells, if the adapter has them."""
        if self.cells is None:
            return None
        size = self._map_size(cells)
        if size not in self._features:
            self._features[size] = self.cells(self.locations, self.captions, self.extents, size)
        return self._features[size]

    def relative_features(self, tokens: int) -> Tensor | None:
        """The box-relative features (B, L, F) of a feature map with L = `tokens`, if the adapter has them."""
        if self.relative is None or self.captions is None:
            return None
        size = self._map_size(tokens)
        if size not in self._relative:
            self._relative[size] = self.relative.seen(self.locations, self.captions, size, self.instance_mask)
        return self._relative[size]

    def _map_size(self, cells: int) -> tuple[int, int]:
        """(height, width) of the current feature map, which has to have `cells` cells."""
        if self.map_size is None:
            raise ModelError("grounding: the size of the feature map is unknown; graft the adapter on the UNet")
        if self.map_size[0] * self.map_size[1] != cells:
            raise ModelError(
                f"grounding: a layer sees {cells} cells of a map of {self.map_size}, as token merging makes it; "
                "take that patch off"
            )
        return self.map_size


def _cat_slots(parts: Sequence[Tensor | None]) -> Tensor:
    """Join (B, N, D) values of batches; those with fewer slots get zeros."""
    given = [part for part in parts if part is not None]
    slots = max(part.shape[1] for part in given)
    return torch.cat([functional.pad(part, [0, 0, 0, slots - part.shape[1]]) for part in given])
