"""Extents: how far an instance reaches on each axis, where its locations say so."""

from __future__ import annotations

import torch
from torch import Tensor

from instancediffusion.conditioning.locations import LocationTensors


def known_extents(locations: LocationTensors) -> tuple[Tensor, Tensor]:
    """The bounding boxes of what is told of each instance.

    Args:
        locations: B images of N slots.

    Returns:
        (B, N, 4) xyxy, fractions of the canvas: the box; else that of the mask; else that of stroke or point, which
        tells only what the instance covers at least. And (B, N) bool: box or mask, so that the extent is known.
    """
    present = locations.present
    # Whatever says least about the extent comes first and is overwritten by what says more.
    low, high = locations.points, locations.points
    for kind, points in (("scribble", locations.scribbles), ("mask", locations.mask_points)):
        low = torch.where(present[kind][..., None], points.amin(2), low)
        high = torch.where(present[kind][..., None], points.amax(2), high)
    extents = torch.where(present["box"][..., None], locations.boxes, torch.cat([low, high], -1))
    return extents, present["box"] | present["mask"]
