"""Leaving locations out at random, so that a model learns to work with whatever kinds a user gives.

The published training draws one set of kinds per call, shared by all pictures and instances, and practically never
gives box, scribble or mask by itself. Here every instance has its own draw, every subset of kinds occurs, and the order
may be unstated.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from instancediffusion.conditioning import KINDS, LocationTensors
from instancediffusion.errors import SettingsError

SUBSETS: tuple[tuple[str, ...], ...] = tuple(
    subset for size in range(1, len(KINDS) + 1) for subset in itertools.combinations(KINDS, size)
)
"""All 15 non-empty sets of kinds, single ones first, in the order of `KINDS`."""


@dataclass(frozen=True)
class LocationDropout:
    """Which kinds of location the model is given, drawn for every instance anew.

    Attributes:
        box_only: probability of a box alone.
        mask_only: probability of a mask alone.
        point_only: probability of a point alone.
        scribble_only: probability of a scribble alone; what is left is shared by all 15 sets of kinds alike.
        uniform_scene: probability that all instances of a scene get the same draw, as in most users' scenes.
        no_order: probability that a scene states no z-order at all.
        some_order: probability that each instance of a scene states its order or not, evenly.
        subset: probability that only some of a scene's instances are described.
    """

    box_only: float = 0.35
    mask_only: float = 0.20
    point_only: float = 0.12
    scribble_only: float = 0.12
    uniform_scene: float = 0.5
    no_order: float = 0.15
    some_order: float = 0.10
    subset: float = 0.12

    def __post_init__(self) -> None:
        """Check the probabilities."""
        singles = (self.box_only, self.mask_only, self.point_only, self.scribble_only)
        if min(singles) < 0 or sum(singles) > 1:
            raise SettingsError(
                f"box_only, mask_only, point_only, scribble_only = {singles}: expected probabilities that sum to at "
                "most 1"
            )
        if min(self.no_order, self.some_order) < 0 or self.no_order + self.some_order > 1:
            raise SettingsError("no_order, some_order: expected probabilities that sum to at most 1")

    def weights(self) -> Tensor:
        """Return the probability of each of `SUBSETS`, (15,) float64."""
        singles = {
            "box": self.box_only,
            "point": self.point_only,
            "scribble": self.scribble_only,
            "mask": self.mask_only,
        }
        rest = max(0.0, 1 - sum(singles.values())) / len(SUBSETS)
        probabilities = [rest + (singles[s[0]] if len(s) == 1 else 0.0) for s in SUBSETS]
        return torch.tensor(probabilities, dtype=torch.float64)


def drop_locations(full: LocationTensors, dropout: LocationDropout, generator: torch.Generator) -> LocationTensors:
    """Leave out instances, kinds of location and orders.

    Args:
        full: B scenes with all their annotations.
        dropout: the probabilities.
        generator: the only source of randomness; the number of draws depends on B and N alone.

    Returns:
        The same locations with fewer `used`, `present` and `z_known` flags. Every used instance keeps a kind (one that
        has none of the drawn kinds keeps all it has), and every scene an instance; the ranks of the order are dense
        among the instances that state one.
    """
    shape = full.used.shape
    used = _some_instances(full.used, dropout.subset, generator)

    each = torch.multinomial(dropout.weights(), shape.numel(), replacement=True, generator=generator).view(shape)
    shared = torch.multinomial(dropout.weights(), shape[0], replacement=True, generator=generator)[:, None]
    alike = torch.rand(shape[0], 1, generator=generator) < dropout.uniform_scene
    drawn = torch.where(alike, shared, each)
    member = torch.tensor([[kind in subset for kind in KINDS] for subset in SUBSETS])[drawn]
    has = torch.stack([full.present[kind] for kind in KINDS], -1) & used[..., None]
    given = torch.where((member & has).any(-1, keepdim=True), member & has, has)
    present = {kind: given[..., k] for k, kind in enumerate(KINDS)}

    u = torch.rand(shape[0], 1, generator=generator)
    half = torch.rand(shape, generator=generator) < 0.5
    stated = (u >= dropout.no_order) & ((u >= dropout.no_order + dropout.some_order) | half)
    known = full.z_known & used & stated
    return replace(
        full,
        used=used,
        present=present,
        z_known=known,
        z_order=dense_ranks(full.z_order, known),
        segmentation_channel=channels_by_area(full.boxes, present["mask"]),
    )


def channels_by_area(boxes: Tensor, masked: Tensor) -> Tensor:
    """Channel of each mask in the segmentation input: 0, 1, ... by falling area of its box, as published training does.

    Args:
        boxes: (B, N, 4) xyxy.
        masked: (B, N) bool: the slot has a mask.

    Returns:
        (B, N) int64; -1 for slots without a mask.
    """
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    area = torch.where(masked, area, -1.0)
    rank = area.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return torch.where(masked, rank, -1)


def dense_ranks(order: Tensor, known: Tensor) -> Tensor:
    """Rank the stated orders of each scene 0, 1, ... from the back.

    Args:
        order: (B, N) numbers, larger is nearer.
        known: (B, N) bool.

    Returns:
        (B, N) float32; equal orders share a rank, and unstated ones have 0.
    """
    behind = known[:, None, :] & (order[:, None, :] < order[:, :, None])  # [b, i, j]: j is stated and behind i
    same = known[:, None, :] & (order[:, None, :] == order[:, :, None])
    earlier = torch.ones(order.shape[1], order.shape[1]).tril(-1).bool()
    first = known & ~(same & earlier).any(-1)  # the first of those that share an order stands for them
    return torch.where(known, (behind & first[:, None, :]).sum(-1), 0).float()


def _some_instances(used: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """With some probability, keep a random non-empty part of each scene's instances."""
    keep = torch.rand(used.shape, generator=generator)
    fewer = torch.rand(used.shape[0], 1, generator=generator) < probability
    threshold = torch.rand(used.shape[0], 1, generator=generator)
    score = keep.masked_fill(~used, 2.0)
    chosen = (score < threshold) | (score == score.amin(1, keepdim=True))
    return used & (chosen | ~fewer)
