"""Cell frames: where a cell lies as seen from an instance.

A stock UNet has no sense of place but the edges of its maps, and the grounding tokens tell every cell of an instance
the same. A model trained from nothing then learns an instance's colours long before its shape, since each cell would
have to find out by itself which part of the object it holds. The frame says so: the cell's place as seen from the
instance's centre, in canvas and in instance lengths. The published model has nothing of the kind.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

OCTAVES = 4
FRAME_FEATURES = 2 * 2 * 2 * OCTAVES + 2


def cell_frames(extents: Tensor, known: Tensor, size: tuple[int, int]) -> Tensor:
    """Frames of all cells of a feature map for every instance.

    Args:
        extents: (B, N, 4) xyxy, fractions of the canvas.
        known: (B, N) bool: the scene states the extent; else it is a guess.
        size: (height, width) of the feature map in cells; L = height * width.

    Returns:
        (B, L, N, FRAME_FEATURES) float32: sines and cosines of the offset of the cell's centre from the instance's, in
        canvas lengths, and a one; the same in half sides of the instance, and whether these are known.
    """
    height, width = size
    low, high = extents.float().unflatten(-1, (2, 2)).unbind(-2)
    y = (torch.arange(height, device=extents.device) + 0.5) / height
    x = (torch.arange(width, device=extents.device) + 0.5) / width
    cells = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1).reshape(1, -1, 1, 2)
    offset = cells - ((low + high) / 2)[:, None]
    relative = offset / ((high - low) / 2)[:, None].clamp(min=1e-3)
    one = torch.ones_like(offset[..., :1])
    return torch.cat([_waves(offset), one, _waves(relative.clamp(-2, 2)), one * known[:, None, :, None].float()], -1)


def _waves(values: Tensor) -> Tensor:
    """(..., 2) -> (..., 4 OCTAVES) sines and cosines at pi/2, pi, 2 pi ..."""
    angles = values[..., None] * (math.pi / 2 * 2.0 ** torch.arange(OCTAVES, device=values.device))
    return torch.cat([angles.sin(), angles.cos()], -1).flatten(-2)
