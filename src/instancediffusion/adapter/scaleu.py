"""ScaleU: learned rescaling of decoder features and of low frequencies of the skips (paper, section 3.3)."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn

from instancediffusion.adapter.kernels import is_exporting


class ScaleU(nn.Module):
    """h <- h (tanh(b) + 1) per channel; skip <- skip with its lowest frequencies times (tanh(s) + 1).

    Acts in every decoder step, before the features are joined, with or without grounding.
    """

    def __init__(self, channels: int) -> None:
        """`channels` of the incoming decoder feature h."""
        super().__init__()
        self.b = nn.Parameter(torch.zeros(channels))
        self.s = nn.Parameter(torch.zeros(1))

    def forward(self, joined: Tensor) -> Tensor:
        """(B, C + C_skip, H, W), h first -> same shape, rescaled."""
        hidden, skip = joined.split([len(self.b), joined.shape[1] - len(self.b)], dim=1)
        hidden = hidden * (self.b.tanh() + 1)[:, None, None].to(hidden.dtype)
        return torch.cat([hidden, scale_low_frequencies(skip, self.s.tanh() + 1)], dim=1)


def scale_low_frequencies(features: Tensor, scale: Tensor) -> Tensor:
    """Multiply the 2x2 lowest bins of the shifted spectrum by `scale` and return the real part.

    The published filter does this with an FFT. The four bins are the frequencies {-1, 0} x {-1, 0}, so the
    change is a sum of four projections that needs no FFT and holds in any size and type:
    f + (s - 1) / (H W) [S + P(r) + P(c) + P(r + c)], where S is the sum over the map, r = 2 pi row / H,
    c = 2 pi column / W and P(u) = <f, cos u> cos u + <f, sin u> sin u.

    Args:
        features: (B, C, H, W).
        scale: one value.

    Returns:
        (B, C, H, W) of the type of `features`.
    """
    made = _new_basis if is_exporting() else _basis  # what an export makes is no tensor to be kept
    basis = made(features.shape[-2], features.shape[-1], features.device)
    if features.stride(1) == 1:  # channels last: the same products the other way round, and no copies
        rows = features.permute(0, 2, 3, 1).flatten(1, 2).float()
        with torch.autocast(features.device.type, enabled=False):
            change = basis.T @ (basis @ rows)
        change = change * ((scale.float() - 1) / rows.shape[1])
        return features + change.to(features.dtype).transpose(1, 2).unflatten(-1, features.shape[-2:])
    flat = features.flatten(2).float()
    with torch.autocast(features.device.type, enabled=False):  # sums over a whole map need float32
        change = (flat @ basis.T) @ basis
    change = change * ((scale.float() - 1) / flat.shape[-1])
    return features + change.unflatten(-1, features.shape[-2:]).to(features.dtype)


@lru_cache(maxsize=64)
def _basis(height: int, width: int, device: torch.device) -> Tensor:
    """Computed once for a size: `_new_basis`. As a plain tensor, which may stand in a graph of gradients."""
    with torch.inference_mode(False):
        return _new_basis(height, width, device)


def _new_basis(height: int, width: int, device: torch.device) -> Tensor:
    """The projections as rows of a (K, H W) matrix.

    A map of one row or column has no frequency -1 bin of its own there: the published slice is then clipped
    to the bins that exist.
    """
    rows = torch.arange(height, device=device).float() * (2 * math.pi / height)
    columns = torch.arange(width, device=device).float() * (2 * math.pi / width)
    phases = [torch.zeros(height, width, device=device)]
    if height > 1:
        phases.append(rows[:, None].expand(height, width))
    if width > 1:
        phases.append(columns[None, :].expand(height, width))
    if height > 1 and width > 1:
        phases.append(rows[:, None] + columns)
    angles = torch.stack(phases).flatten(1)
    return torch.cat([angles.cos(), angles[1:].sin()])
