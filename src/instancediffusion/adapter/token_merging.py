"""Visual tokens merged for attention, never across the border of an instance.

Token merging for diffusion (Bolya and Hoffman 2023): neighbours that are alike are attended to as one. Of each 2x2
patch of a large map the first token stays; of the others those most like it join it, as their mean, and get its result.
A token joins only where the same instances are: what lies on both sides of a border, or of an overlap, stays apart. So
pairs are looked for within patches, which costs nothing beside the attention, and not over the whole map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional

from instancediffusion.conditioning import LocationTensors
from instancediffusion.conditioning.attention_mask import AttentionBias
from instancediffusion.conditioning.regions import instance_regions
from instancediffusion.conditioning.visibility import memberships

LEAST_TOKENS = 2048
"""Fewest visual tokens of a map that are merged: on smaller ones attention is not what a call takes its time for."""


@dataclass(frozen=True, eq=False)
class MapPatches:
    """The 2x2 patches of one feature map of L visual tokens, of which S may join the first of their patch.

    Attributes:
        home: (L,) int64, the first token of each one's patch.
        joining: (S,) int64, the tokens that are not the first.
        allowed: (B, S) bool, those with the same instances as the first.
        numbers: for each image, how many join.
    """

    home: Tensor
    joining: Tensor
    allowed: Tensor
    numbers: Sequence[int]


@dataclass(frozen=True, eq=False)
class TokenMerging:
    """A value, handed to a UNet as `cross_attention_kwargs={"merging": merging}`.

    Attributes:
        fraction: of the visual tokens of a map, how many are merged at most, 0 to .75.
        locations: of the B images.
        maps: by size, what `on_maps` was asked for.
        here: that of the map of the current layer; None = it is too small.
    """

    fraction: float
    locations: LocationTensors
    maps: Mapping[tuple[int, int], MapPatches] = field(default_factory=dict)
    here: MapPatches | None = None

    def on_maps(self, sizes: Iterable[tuple[int, int]]) -> TokenMerging:
        """The same merging with the patches of maps of these (height, width) found."""
        return replace(self, maps={size: self._of_map(size) for size in sizes if size[0] * size[1] >= LEAST_TOKENS})

    def on_map(self, height: int, width: int) -> TokenMerging:
        """The same merging for a map that a network is about to attend over."""
        size = (height, width)
        if height * width < LEAST_TOKENS:
            return replace(self, here=None)
        return replace(self, here=self.maps[size] if size in self.maps else self._of_map(size))

    def of(self, tokens: Tensor) -> MergedTokens | None:
        """Choose, by visual tokens (B, L, C) of the current map, which are merged; None where none are."""
        found = self.here
        if found is None or not any(found.numbers):
            return None
        unit = functional.normalize(tokens.float(), dim=-1)
        alike = (unit[:, found.joining] * unit[:, found.home[found.joining]]).sum(-1)
        alike = alike.masked_fill(~found.allowed, -2)
        slots, kept = [], []
        for own, number in zip(alike, found.numbers, strict=True):
            stays = torch.ones(len(found.home), dtype=torch.bool, device=tokens.device)
            gone = found.joining[own.topk(number).indices]
            stays[gone] = False
            slot = stays.cumsum(0) - 1
            slots.append(slot.index_copy(0, gone, slot[found.home[gone]]))
            kept.append(stays.nonzero()[:, 0])
        return MergedTokens(slots, kept)

    def _of_map(self, size: tuple[int, int]) -> MapPatches:
        height, width = size
        row, column = torch.arange(height)[:, None], torch.arange(width)
        home = ((row - row % 2) * width + column - column % 2).flatten()
        joining = (home != torch.arange(height * width)).nonzero()[:, 0]
        regions, bounded = instance_regions(self.locations, size)
        if regions.shape[1]:
            loose = memberships(self.locations, size) > 0.5
            regions = torch.where(bounded[..., None, None], regions, loose) & self.locations.used[..., None, None]
        device = regions.device
        home, joining, flat = home.to(device), joining.to(device), regions.flatten(2)
        allowed = (flat[..., joining] == flat[..., home[joining]]).all(1)
        most = int(self.fraction * height * width)
        return MapPatches(home, joining, allowed, [min(most, count) for count in allowed.sum(1).tolist()])


@dataclass(frozen=True, eq=False)
class MergedTokens:
    """Which of the visual tokens of B images are one; each image has its own number of them.

    Attributes:
        slots: for each image, (L,) int64, the merged token of each.
        kept: for each image, (K,) int64, the token that each merged one was, or was joined to.
    """

    slots: Sequence[Tensor]
    kept: Sequence[Tensor]

    def attended(self, rows: Tensor, attend: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Attend by merged tokens.

        Args:
            rows: (B, L, C).
            attend: from an image and its merged tokens (1, K, C) to what they become (1, K, D).

        Returns:
            (B, L, D): tokens that are merged get the same.
        """
        found = []
        for image, (slot, kept) in enumerate(zip(self.slots, self.kept, strict=True)):
            joined = rows.new_zeros(len(kept), rows.shape[-1]).index_add(0, slot, rows[image])
            counts = torch.bincount(slot, minlength=len(kept))[:, None]
            found.append(attend(image, (joined / counts.to(joined.dtype))[None])[:, slot])
        return torch.cat(found)

    def bias(self, image: int, bias: AttentionBias) -> AttentionBias:
        """That of an image, for its merged tokens.

        Fewer visual tokens share a softmax with as many grounding tokens: these weigh less by as much, or instances
        would act more strongly the more is merged.
        """
        own, kept = bias.select(torch.tensor([image], device=bias.tokens.device)), self.kept[image]
        tokens = own.tokens if own.tokens.shape[-2] == 1 else own.tokens[..., kept, :]
        tokens = tokens + math.log(len(kept) / len(self.slots[image]))
        return AttentionBias(tokens, None if own.visual is None else own.visual[..., kept, :][..., kept])
