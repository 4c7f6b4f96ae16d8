"""Where instances are: their extents, and which positions of a feature map each covers."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from instancediffusion.conditioning.locations import LocationTensors


def canvas_units(size: tuple[int, int]) -> tuple[float, float]:
    """How many canvas units the width and the height of a canvas have: the unit is the side of a square of its area.

    A fraction of a wide canvas' width is longer than the same fraction of its height. Measured in one unit, objects and
    distances are the same on canvases of every shape; on a square one, units and fractions are equal.

    Args:
        size: (height, width) of a feature map of the canvas.
    """
    height, width = size
    return math.sqrt(width / height), math.sqrt(height / width)


def known_extents(locations: LocationTensors) -> tuple[Tensor, Tensor]:
    """The bounding boxes of the given locations of each instance.

    Args:
        locations: B images of N slots.

    Returns:
        (B, N, 4) xyxy, fractions of the canvas: the box; else that of the mask; else that of stroke or point, which
        gives only what the instance covers at least. And (B, N) bool: box or mask, so that the extent is given.
    """
    present = locations.present
    # Whatever says least about the extent comes first and is overwritten by what says more.
    low, high = locations.points, locations.points
    for kind, points in (("scribble", locations.scribbles), ("mask", locations.mask_points)):
        low = torch.where(present[kind][..., None], points.amin(2), low)
        high = torch.where(present[kind][..., None], points.amax(2), high)
    extents = torch.where(present["box"][..., None], locations.boxes, torch.cat([low, high], -1))
    return extents, present["box"] | present["mask"]


def box_regions(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Feature-map positions that a box touches.

    Args:
        boxes: (..., 4) xyxy, fractions of the canvas.
        size: (height, width) of the feature map.

    Returns:
        (..., height, width) bool. A position counts when its area overlaps the box; a box thinner than one
        position still has those it lies in.
    """
    height, width = size
    x0, y0, x1, y1 = boxes.float().unbind(-1)

    def covered(low: Tensor, high: Tensor, count: int) -> Tensor:
        edges = torch.arange(count, device=boxes.device, dtype=torch.float32)
        # The tolerance keeps an edge on the border of a position, up to rounding, out of the next one.
        tolerance = 1e-4
        return (edges < high[..., None] * count - tolerance) & (edges + 1 > low[..., None] * count + tolerance)

    return covered(y0, y1, height)[..., :, None] & covered(x0, x1, width)[..., None, :]


def instance_regions(locations: LocationTensors, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The feature-map positions of every instance: those of its mask if it has one, else those of its box.

    Args:
        locations: B images of N slots.
        size: (height, width) of the feature map.

    Returns:
        regions (B, N, height, width) bool, and bounded (B, N) bool: False for slots with neither mask nor box
        (a point or a scribble does not give the extent of its object), whose region is empty here.
    """
    with_box = locations.present["box"]
    regions = box_regions(locations.boxes, size) & with_box[..., None, None]
    bounded = with_box
    if locations.segmentations is not None:
        with_mask = locations.present["mask"]
        bitmap = locations.segmentations.to(torch.float32)
        # A position counts when any of its pixels does, so that thin objects do not vanish at coarse levels.
        covered = functional.adaptive_max_pool2d(bitmap, size) > 0 if bitmap.numel() else regions
        drawn = with_mask & covered.any(-1).any(-1)  # a mask that left no trace in the bitmap: the box counts
        regions = torch.where(drawn[..., None, None], covered, regions)
        bounded = bounded | drawn
    return regions, bounded


def covered_cells(locations: LocationTensors, size: tuple[int, int]) -> Tensor:
    """How much of each feature-map position the used slots of a scene cover, whichever locations are given of them.

    Args:
        locations: B images of N slots, with the bitmaps of all their instances.
        size: (height, width) of the feature map.

    Returns:
        (B, height, width) float32, 0..1.

    Raises:
        ValueError: there are no bitmaps.
    """
    if locations.segmentations is None:
        raise ValueError("scenes: the masks of all instances are needed")
    covered = (locations.segmentations.bool() & locations.used[..., None, None]).any(1).float()
    return functional.adaptive_avg_pool2d(covered, size)


def published_regions(locations: LocationTensors, side: int = 64) -> Tensor:
    """The published instance map: boxes rounded to feature-map positions and written with x and y exchanged.

    Kept for comparison with the published code only (it indexes rows by x). Returns (B, N, side, side) bool.
    """
    # On the CPU: not every device has the double precision that ties are rounded in.
    corners = torch.round(locations.boxes.cpu().double() * side).to(locations.device, torch.float32)
    x0, y0, x1, y1 = (corners[..., i, None] for i in range(4))
    index = torch.arange(side, device=locations.device)
    rows = (index >= x0) & (index < x1)
    columns = (index >= y0) & (index < y1)
    return rows[..., :, None] & columns[..., None, :] & locations.used[..., None, None]
