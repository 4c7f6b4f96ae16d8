"""Depth: ranks of the stated orders, and visibility, how much of each instance is visible at each feature-map position.

V_i(p) = m_i(p) * product over the nearer j of (1 - a_j m_j(p)), with the membership m and the opacity a. It is the
"over" operator of compositing (Porter and Duff 1984), written for each layer by itself. Instances hide each other only
where the scene states their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from instancediffusion.conditioning.locations import LocationTensors
from instancediffusion.conditioning.regions import box_regions, canvas_units
from instancediffusion.scene import Scene
from instancediffusion.scene.ordering import depth_ranks

MASK_OPACITY, BOX_OPACITY, LOOSE_OPACITY = 0.98, 0.8, 0.6
"""How sure it is that an instance covers a position of its mask, its box (objects leave the corners free), or one near
its stroke or point."""

LOOSE_FLOOR = 0.1
"""Least membership of an instance given by stroke or point only: its extent is not given."""

LEAST = 1e-4
"""Least visibility of an instance given by box or mask, so that its logarithm is finite."""

STROKE_RADIUS, POINT_RADIUS = 0.06, 0.12
"""Standard deviations of the soft disc round each point of a stroke, and round a single point, in canvas units."""


def depth_order(scenes: Sequence[Scene], slots: int) -> tuple[Tensor, Tensor]:
    """The depth order of B scenes as ranks: what counts is which instance is nearer, not by how much.

    Args:
        scenes: of at most N instances.
        slots: N.

    Returns:
        (B, N) float32, dense ranks, 0 = farthest; and (B, N) bool, where an order is stated.
    """
    ranks, ranked = torch.zeros(len(scenes), slots), torch.zeros(len(scenes), slots, dtype=torch.bool)
    for row, scene in enumerate(scenes):
        for slot, rank in enumerate(depth_ranks([instance.z_order for instance in scene.instances])):
            if rank is not None:
                ranks[row, slot], ranked[row, slot] = rank, True
    return ranks, ranked


def reversed_order(locations: LocationTensors, rows: Tensor) -> LocationTensors:
    """The same locations, with the depth order of some images (B,) bool turned round."""
    farthest = locations.z_order.masked_fill(~locations.z_known, 0).amax(1, keepdim=True)
    turned = rows[:, None] & locations.z_known
    return replace(locations, z_order=torch.where(turned, farthest - locations.z_order, locations.z_order))


def nearer(locations: LocationTensors) -> Tensor:
    """(B, N, N) float32: at [b, i, j], 1 where j is stated to be in front of i, 0 where behind, 1/2 where neither is.

    Slots of no instance, and an instance beside itself, have 0.
    """
    rank, ranked, used = locations.z_order, locations.z_known, locations.used
    front = (rank[:, None, :] > rank[:, :, None]).float()
    stated = ranked[:, None, :] & ranked[:, :, None] & (rank[:, None, :] != rank[:, :, None])
    other = ~torch.eye(locations.slots, dtype=torch.bool, device=locations.device)
    return torch.where(stated, front, 0.5) * (used[:, None, :] & used[:, :, None] & other)


def memberships(locations: LocationTensors, size: tuple[int, int]) -> Tensor:
    """How much of each feature-map position belongs to each instance, hidden or not.

    Of a mask and of a box, the fraction of the position's area in it; a stroke and a point have soft discs round them.

    Args:
        locations: B images of N slots.
        size: (height, width) of the feature map.

    Returns:
        (B, N, height, width) float32, 0..1; 1 everywhere for slots without any location.
    """
    present = locations.present
    member = torch.ones(*locations.used.shape, *size, device=locations.device)
    for kind, points, radius in (
        ("point", locations.points[:, :, None], POINT_RADIUS),
        ("scribble", locations.scribbles, STROKE_RADIUS),
    ):
        soft = _discs(points, radius, size)
        member = torch.where(present[kind][..., None, None], soft, member)
    member = torch.where(present["box"][..., None, None], _box_fractions(locations.boxes, size), member)
    if locations.segmentations is not None and locations.segmentations.numel():
        fractions = functional.adaptive_avg_pool2d(locations.segmentations.float(), size)
        # A mask that left no trace in the bitmap: the box counts.
        drawn = present["mask"] & locations.segmentations.flatten(2).any(-1).bool()
        member = torch.where(drawn[..., None, None], fractions, member)
    return member


def visibility(locations: LocationTensors, size: tuple[int, int]) -> Tensor:
    """Visibility of each instance at each feature-map position; see the module and `memberships` for the arguments.

    Returns:
        (B, N, height, width) float32, `LEAST`..1.
    """
    member = memberships(locations, size)
    tight = locations.present["box"] | locations.present["mask"]
    covered = _opacity(locations)[..., None, None] * member
    in_front = nearer(locations) == 1  # 1/2 stands for pairs of no stated order
    # Slot by slot: (B, N, N, h, w) would be large at 64 x 64 positions.
    shown = torch.where(tight[..., None, None], member, member.clamp(min=LOOSE_FLOOR))
    for j in range(locations.slots):
        hides = in_front[:, :, j, None, None]
        shown = torch.where(hides, shown * (1 - covered[:, None, j]), shown)
    return shown.clamp(min=LEAST)


def stated_overlaps(locations: LocationTensors, size: tuple[int, int]) -> Tensor:
    """Where instances of stated order overlap: the largest product of two memberships, (B, height, width)."""
    member = memberships(locations, size)
    in_front = nearer(locations) == 1
    shared = torch.zeros(locations.batch_size, *size, device=locations.device)
    for j in range(locations.slots):
        behind = torch.where(in_front[:, :, j, None, None], member, 0.0)
        shared = torch.maximum(shared, (behind * member[:, None, j]).amax(1))
    return shared


def _opacity(locations: LocationTensors) -> Tensor:
    opacity = torch.where(locations.present["box"], BOX_OPACITY, LOOSE_OPACITY)
    if locations.segmentations is None:
        return opacity
    return torch.where(locations.present["mask"], MASK_OPACITY, opacity)


def _box_fractions(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Fraction of each feature-map position inside a box; a box thinner than one counts whole in those it touches."""

    def inside(low: Tensor, high: Tensor, count: int) -> Tensor:
        edges = torch.arange(count, device=boxes.device, dtype=torch.float32)
        fraction = torch.minimum(high[..., None] * count, edges + 1) - torch.maximum(low[..., None] * count, edges)
        return fraction.clamp(0, 1)

    x0, y0, x1, y1 = boxes.float().unbind(-1)
    fractions = inside(y0, y1, size[0])[..., :, None] * inside(x0, x1, size[1])[..., None, :]
    thin = fractions.amax((-2, -1), keepdim=True) < 0.5
    return torch.where(thin, box_regions(boxes, size).float(), fractions)


def _centres(size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return x of the columns and y of the rows, fractions."""
    y = (torch.arange(size[0], device=device, dtype=torch.float32) + 0.5) / size[0]
    x = (torch.arange(size[1], device=device, dtype=torch.float32) + 0.5) / size[1]
    return x, y


def _discs(points: Tensor, radius: float, size: tuple[int, int]) -> Tensor:
    """Gaussian of the distance to the nearest of (B, N, P, 2) points, (B, N, h, w)."""
    x, y = _centres(size, points.device)
    wide, tall = canvas_units(size)
    down, across = ((y - points[..., 1, None]) * tall) ** 2, ((x - points[..., 0, None]) * wide) ** 2
    nearest = (down[..., :, None] + across[..., None, :]).amin(2)
    return torch.exp(-nearest / (2 * radius**2))
