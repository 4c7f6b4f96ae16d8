"""Fourier features of coordinates (paper, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor

TEMPERATURE = 100.0


def fourier_features(coordinates: Tensor, frequencies: int) -> Tensor:
    """Sines and cosines of coordinates at geometric frequencies f_k = 100^(k / K), without a factor 2 pi.

    Args:
        coordinates: (..., D), fractions of the canvas.
        frequencies: K.

    Returns:
        (..., 2 K D) float32, ordered sin(f_0 c), cos(f_0 c), sin(f_1 c), ... with D values each. Always
        computed in float32: at f = 75 half precision would lose the third digit of the place.
    """
    exponents = torch.arange(frequencies, device=coordinates.device, dtype=torch.float32) / frequencies
    angles = coordinates.float()[..., None, :] * (TEMPERATURE**exponents)[:, None]
    return torch.stack([angles.sin(), angles.cos()], dim=-2).flatten(-3)
