"""Box-relative coordinates: where a visual token lies relative to an instance.

A stock UNet has positions only from the edges of its maps, and attention hands every visual token of an instance the
same values. Which part of the object a token shows, each layer would have to find out by itself. These coordinates say
it: relative position has the same use in detectors that attend to boxes (Hu et al., "Relation Networks", CVPR 2018,
eq. 5).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from instancediffusion.conditioning.locations import LocationTensors
from instancediffusion.conditioning.regions import canvas_units, known_extents

OCTAVES = 4
RELATIVE_FEATURES = 2 * 2 * 2 * OCTAVES + 2 + 3
LOOSE_HALF_SIDE = 0.15
"""Half side, in canvas units, of the reference box of an instance given by a point, and the least one of a scribble."""


def relative_coordinates(locations: LocationTensors, size: tuple[int, int]) -> Tensor:
    """Features of the position of every visual token relative to every instance.

    The reference box of an instance is its box, else the extent of its mask, else that of its scribble or point with
    sides of at least `2 LOOSE_HALF_SIDE`. For canvas units see `canvas_units`.

    Args:
        locations: B images of N slots.
        size: (height, width) of the feature map in visual tokens; L = height * width.

    Returns:
        (B, N, L, RELATIVE_FEATURES) float32: sines and cosines of the offset from the box's centre, first in half sides
        of the box (clamped to +-2), then in canvas units; the logarithms of the half sides; and one of three flags: box
        or mask, scribble, point.
    """
    height, width = size
    extents, given = known_extents(locations)
    low, high = extents.float().unflatten(-1, (2, 2)).unbind(-2)
    unit = torch.tensor(canvas_units(size), device=extents.device)
    half = (high - low) / 2 * unit
    half = torch.where(given[..., None], half.clamp(min=1e-3), half.clamp(min=LOOSE_HALF_SIDE))
    y = (torch.arange(height, device=extents.device) + 0.5) / height
    x = (torch.arange(width, device=extents.device) + 0.5) / width
    tokens = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1).reshape(-1, 2)
    offset = (tokens - ((low + high) / 2)[:, :, None]) * unit
    relative = (offset / half[:, :, None]).clamp(-2, 2)
    scribble = locations.present["scribble"] & ~given
    flags = torch.stack([given, scribble, ~given & ~scribble], -1).float()
    constant = torch.cat([half.log() / 2, flags], -1)[:, :, None].expand(-1, -1, len(tokens), -1)
    return torch.cat([_waves(relative), _waves(offset), constant], -1)


def _waves(values: Tensor) -> Tensor:
    """(..., 2) -> (..., 4 OCTAVES) sines and cosines at pi/2, pi, 2 pi ..."""
    angles = values[..., None] * (math.pi / 2 * 2.0 ** torch.arange(OCTAVES, device=values.device))
    return torch.cat([angles.sin(), angles.cos()], -1).flatten(-2)
