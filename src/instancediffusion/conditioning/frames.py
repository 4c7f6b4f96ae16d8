"""Cell frames: where a cell lies within the instance that it most likely shows.

A stock UNet has no sense of place but the edges of its maps, and the grounding tokens tell every cell of an instance
the same. A model trained from nothing then learns an instance's colours long before its shape, since each cell would
have to find out by itself which part of the object it holds. Its frame says so: the cell's place as seen from the
instance's centre, in canvas and in instance lengths. The published model has nothing of the kind.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from instancediffusion.conditioning.locations import LocationTensors
from instancediffusion.conditioning.regions import instance_regions

OCTAVES = 4
FRAME_FEATURES = 2 * (2 * 2 * OCTAVES + 1)
REACH = 0.1
"""Distance, in canvas lengths, up to which a point or stroke without box and mask claims a cell that others cover."""


def cell_frames(locations: LocationTensors, size: tuple[int, int]) -> Tensor:
    """Frames of all cells of a feature map.

    A cell belongs to the instance that covers it; of several to the one stated to be nearest to the viewer, else to the
    smallest. An instance of unknown extent (neither box nor mask) has the cells near its point or stroke, and those
    that nobody covers if it is the nearest of its like. Cells of several equal instances get the mean of their frames,
    cells of none get zeros.

    Args:
        locations: B images of N slots.
        size: (height, width) of the feature map in cells; L = height * width.

    Returns:
        (B, L, FRAME_FEATURES) float32: sines and cosines of the offset from the centre, in canvas lengths, and a one;
        the same in half sides of the instance, and a one, or zeros where its extent is unknown.
    """
    batch, slots = locations.used.shape
    height, width = size
    if slots == 0:
        return torch.zeros(batch, height * width, FRAME_FEATURES, device=locations.device)
    centre, half, known = _extents(locations)
    y = (torch.arange(height, device=locations.device) + 0.5) / height
    x = (torch.arange(width, device=locations.device) + 0.5) / width
    cells = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1).reshape(1, -1, 1, 2)
    offset = cells - centre[:, None]
    owner = _owners(locations, size, offset, known, half)
    inside = known[:, None, :, None].float()
    relative = offset / half[:, None].clamp(min=1e-3)
    features = torch.cat([_waves(offset), torch.ones_like(inside.expand(*owner.shape, 1))], -1)
    scaled = torch.cat([_waves(relative.clamp(-2, 2)), torch.ones_like(features[..., :1])], -1) * inside
    return (torch.cat([features, scaled], -1) * owner[..., None]).sum(2)


def _extents(locations: LocationTensors) -> tuple[Tensor, Tensor, Tensor]:
    """Centres (B, N, 2), half sides (B, N, 2), and whether these are known (B, N)."""
    present = locations.present
    # Whatever says least about the extent comes first and is overwritten by what says more.
    low, high = locations.points, locations.points
    for kind, points in (("scribble", locations.scribbles), ("mask", locations.mask_points)):
        low = torch.where(present[kind][..., None], points.amin(2), low)
        high = torch.where(present[kind][..., None], points.amax(2), high)
    low = torch.where(present["box"][..., None], locations.boxes[..., :2], low)
    high = torch.where(present["box"][..., None], locations.boxes[..., 2:], high)
    return (low + high) / 2, (high - low) / 2, present["box"] | present["mask"]


def _owners(locations: LocationTensors, size: tuple[int, int], offset: Tensor, known: Tensor, half: Tensor) -> Tensor:
    """(B, L, N) weights that sum to 1 for cells with an owner, else to 0."""
    regions, _ = instance_regions(locations, size)
    rank = torch.where(locations.z_known, 1 + locations.z_order, torch.zeros_like(locations.z_order))
    claim = (rank + 0.5 - 2 * half.prod(-1))[:, None]
    score = torch.where(regions.flatten(2).transpose(1, 2), claim, -math.inf)
    # From the bounding box of the point or stroke.
    distance = (offset.abs() - torch.where(known[..., None], 0.0, half)[:, None]).clamp(min=0).norm(dim=-1)
    reached = torch.where(distance < REACH, claim + 1e3, -1 - distance)
    score = torch.where((locations.used & ~known)[:, None], reached, score)
    best = score.amax(2, keepdim=True)
    owner = ((score == best) & (best > -math.inf)).float()
    return owner / owner.sum(2, keepdim=True).clamp(min=1)


def _waves(values: Tensor) -> Tensor:
    """(..., 2) -> (..., 4 OCTAVES) sines and cosines at pi/2, pi, 2 pi ..."""
    angles = values[..., None] * (math.pi / 2 * 2.0 ** torch.arange(OCTAVES, device=values.device))
    return torch.cat([angles.sin(), angles.cos()], -1).flatten(-2)
