"""`Grounding`: all that the UNet needs to know of a batch of scenes, computed once and handed down each call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from instancediffusion.adapter.relative_values import RelativeFeatures
from instancediffusion.adapter.token_merging import MergedTokens
from instancediffusion.conditioning import InstanceMaskRule, LocationTensors
from instancediffusion.conditioning.attention_mask import AttentionBias, attention_bias
from instancediffusion.errors import ModelError


@dataclass(frozen=True, eq=False)
class MapGrounding:
    """What a grounding says of one feature map of L = height * width visual tokens.

    Attributes:
        size: (height, width).
        bias: which tokens attend to which.
        relative: (B, L, F) the box-relative features, for adapters that have them.
    """

    size: tuple[int, int]
    bias: AttentionBias
    relative: Tensor | None = None

    def select(self, rows: Tensor) -> MapGrounding:
        """The images `rows`, int64, in that order."""
        relative = None if self.relative is None else self.relative[rows]
        return MapGrounding(self.size, self.bias.select(rows), relative)


@dataclass(frozen=True, eq=False)
class Grounding:
    """Keys and values of the grounding tokens for every layer, and which visual tokens may attend to them: a value.

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
        maps: what it says of the feature maps that `on_maps` was asked for; of others it is computed in each call.
        here: what it says of the feature map of the current layer; handed down by its transformer.
        ran: takes the names of the gated layers as they run, where a caller wants them; None = they are not recorded.
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
    maps: Sequence[MapGrounding] = ()
    here: MapGrounding | None = None
    ran: list[str] | None = field(default=None, repr=False)

    @property
    def batch_size(self) -> int:
        """B, the number of images."""
        return self.log_weight.shape[0]

    def scaled(self, scale: float) -> Grounding:
        """The same grounding at another scale; shares all tensors."""
        return replace(self, scale=float(scale))

    def on_maps(self, sizes: Iterable[tuple[int, int]]) -> Grounding:
        """The same grounding with all that depends on the feature map computed for maps of these (height, width)."""
        return replace(self, maps=[self._of_map(size) for size in sizes])

    def on_map(self, batch: int, height: int, width: int) -> Grounding:
        """The same grounding for a feature map (B, C, `height`, `width`) that a network is about to attend over.

        Raises:
            ModelError: it is for another number of images.
        """
        if self.batch_size != batch:
            raise ModelError(f"grounding: it is for {self.batch_size} images, the latents are {batch}")
        if self.scale == 0:
            return self
        size = (height, width)
        return replace(self, here=next((one for one in self.maps if one.size == size), None) or self._of_map(size))

    def change(self, name: str, x: Tensor, merged: MergedTokens | None = None) -> Tensor:
        """What the gated layer of a name adds to visual tokens x (B, L, C) of the current map."""
        current = self.here
        if current is None:
            raise ModelError("grounding: the size of the feature map is unknown; graft the adapter on the UNet")
        if current.size[0] * current.size[1] != x.shape[1]:
            raise ModelError(
                f"grounding: a layer sees {x.shape[1]} visual tokens of a map of {current.size}, as token merging "
                "makes it; take that patch off"
            )
        if self.ran is not None:
            self.ran.append(name)
        keys, values = self.keys_values[name]
        change: Tensor = self.layers[name](x, keys, values, current.bias, self.scale, current.relative, merged)
        return change

    def select(self, rows: Sequence[int] | Tensor) -> Grounding:
        """The images `rows`, in that order and as often as they stand there, with what is computed for their maps."""
        if not isinstance(rows, Tensor) and list(rows) == list(range(self.batch_size)):
            return self
        index = torch.as_tensor(rows, dtype=torch.long, device=self.log_weight.device)
        return replace(
            self,
            keys_values={name: (keys[index], values[index]) for name, (keys, values) in self.keys_values.items()},
            log_weight=self.log_weight[index],
            slot=self.slot[index],
            kind=self.kind[index],
            locations=self.locations.select(index),
            captions=None if self.captions is None else self.captions[index],
            maps=[one.select(index) for one in self.maps],
        )

    def single(self, row: int) -> Grounding:
        """One image by itself, without the columns of tokens that only others of the batch use; see `cat`."""
        columns = (self.log_weight[row] > -torch.inf).nonzero()[:, 0]
        rows = slice(row, row + 1)
        return replace(
            self,
            keys_values={
                name: (keys[rows, columns], values[rows, columns]) for name, (keys, values) in self.keys_values.items()
            },
            log_weight=self.log_weight[rows, columns],
            slot=self.slot[rows, columns],
            kind=self.kind[rows, columns],
            locations=self.locations.select([row]),
            captions=None if self.captions is None else self.captions[rows],
            maps=(),
        )

    @staticmethod
    def cat(parts: Sequence[Grounding]) -> Grounding:
        """Join batches of one adapter; images with fewer tokens get hidden ones. What depends on maps is left out."""
        first = parts[0]
        if len(parts) == 1:
            return first
        if any(p.layers is not first.layers or p.instance_mask != first.instance_mask for p in parts):
            raise ValueError("cat: the parts come from different adapters or attention mask rules")
        captions = [p.captions for p in parts if p.captions is not None]
        return replace(
            first,
            keys_values={
                name: (
                    _joined([p.keys_values[name][0] for p in parts]),
                    _joined([p.keys_values[name][1] for p in parts]),
                )
                for name in first.keys_values
            },
            log_weight=_joined([p.log_weight for p in parts], -torch.inf),
            slot=_joined([p.slot for p in parts], -1),
            kind=_joined([p.kind for p in parts]),
            locations=LocationTensors.cat([p.locations for p in parts]),
            captions=_joined(captions) if captions else None,
            maps=(),
        )

    def _of_map(self, size: tuple[int, int]) -> MapGrounding:
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
        return MapGrounding(size, bias, relative)


def _joined(parts: Sequence[Tensor], fill: float = 0.0) -> Tensor:
    """Join (B, N, ...) values of batches; those with fewer columns are filled up."""
    width = max(part.shape[1] for part in parts)
    return torch.cat(
        [
            functional.pad(part, [0, 0] * (part.dim() - 2) + [0, width - part.shape[1]], value=fill)
            if part.shape[1] < width
            else part
            for part in parts
        ]
    )
