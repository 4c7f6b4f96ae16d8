"""`Grounding`: all that the UNet needs to know of a batch of scenes, computed once and handed down each call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from instancediffusion.adapter.relative_values import RelativeFeatures
from instancediffusion.conditioning import InstanceMaskRule, LocationTensors
from instancediffusion.conditioning.attention_mask import AttentionBias, attention_bias
from instancediffusion.errors import ModelError


@dataclass(frozen=True, eq=False)
class MapGrounding:
    """What a grounding says of one feature map of L visual tokens.

    Attributes:
        bias: who sees whom.
        relative: (B, L, F) the box-relative features, for adapters that have them.
    """

    bias: AttentionBias
    relative: Tensor | None = None

    def select(self, rows: Tensor) -> MapGrounding:
        """The images `rows`, int64, in that order."""
        return MapGrounding(self.bias.select(rows), None if self.relative is None else self.relative[rows])


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
        relative: makes the box-relative features, for adapters that have them; see `RelativeFeatures`.
        captions: (B, N, caption_dim) pooled caption features, kept for `relative` only.
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
    relative: RelativeFeatures | None = None
    captions: Tensor | None = None
    map_size: tuple[int, int] | None = None
    ran: list[str] | None = field(default=None, repr=False)
    # By feature map size; filled by `prepared`, else on first use; shared by copies of the same rows.
    _maps: dict[tuple[int, int], MapGrounding] = field(default_factory=dict, repr=False)

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

    def on_map(self, batch: int, height: int, width: int, *, kept: bool = False) -> Grounding:
        """The same grounding for a feature map (B, C, `height`, `width`) that a network is about to attend over.

        Args:
            batch: B.
            height: in visual tokens.
            width: in visual tokens.
            kept: compute now what depends on the map: kept features must not be made in a gradient checkpoint.

        Raises:
            ModelError: it is for another number of images.
        """
        if self.batch_size != batch:
            raise ModelError(f"grounding: it is for {self.batch_size} images, the latents are {batch}")
        sized = self.for_map(height, width)
        if kept and self.scale != 0:
            sized.at(height * width)
        return sized

    def change(self, name: str, x: Tensor) -> Tensor:
        """What the gated layer of a name adds to visual tokens x (B, L, C) of the current map."""
        keys, values = self.keys_values[name]
        told = self.at(x.shape[1])
        if self.ran is not None:
            self.ran.append(name)
        change: Tensor = self.layers[name](x, keys, values, told.bias, self.scale, told.relative)
        return change

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
            _maps={},
        )

    @staticmethod
    def cat(parts: Sequence[Grounding]) -> Grounding:
        """Join batches of one adapter; images with fewer tokens get hidden ones."""
        first = parts[0]
        if len(parts) == 1:
            return first
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
            _maps={},
        )

    def spread(self, rows: Sequence[int]) -> Grounding:
        """The images `rows`, in that order and as often as they stand there, with all that is computed of their maps.

        Rows that are told the same thing are so computed, and kept, once.
        """
        if list(rows) == list(range(self.batch_size)):
            return self
        index = torch.tensor(rows, device=self.log_weight.device)
        return replace(
            self,
            keys_values={name: (keys[index], values[index]) for name, (keys, values) in self.keys_values.items()},
            log_weight=self.log_weight[index],
            slot=self.slot[index],
            kind=self.kind[index],
            locations=self.locations.select(index),
            captions=None if self.captions is None else self.captions[index],
            _maps={size: known.select(index) for size, known in self._maps.items()},
        )

    def prepared(self, sizes: Sequence[tuple[int, int]]) -> Grounding:
        """The same grounding with all that depends on the feature map computed for maps of these (height, width)."""
        for size in sizes:
            self._of_map(size)
        return self

    def at(self, cells: int) -> MapGrounding:
        """What it says of the current feature map, which has `cells` cells."""
        return self._of_map(self._map_size(cells))

    def relative_features(self, tokens: int) -> Tensor | None:
        """The box-relative features (B, L, F) of a feature map with L = `tokens`, if the adapter has them."""
        return self.at(tokens).relative

    def _of_map(self, size: tuple[int, int]) -> MapGrounding:
        if size not in self._maps:
            bias = attention_bias(
                self.instance_mask,
                self.locations,
                size,
                log_weight=self.log_weight,
                slot=self.slot,
                kind=self.kind,
                dtype=self.log_weight.dtype,
            )
            relative = None
            if self.relative is not None and self.captions is not None:
                relative = self.relative.seen(self.locations, self.captions, size, self.instance_mask)
            self._maps[size] = MapGrounding(bias, relative)
        return self._maps[size]

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
