"""Room for what is behind: guesses of nearer instances let the points and strokes of farther ones be seen.

Whoever tells an instance by a point or a stroke shows where it is to be seen. A guess of a nearer instance's extent
that covers it is therefore less likely (ours; not in the paper).
"""

from __future__ import annotations

import torch
from torch import Tensor

from instancediffusion.conditioning import LocationTensors

FACTORS = (1.0, 0.93, 0.86, 0.8, 0.74, 0.68, 0.62, 0.56, 0.5)
"""What the sides of a guess may be multiplied by."""

PENALTY = 3.0
"""What covering one farther instance's stroke wholly costs, against half a square of standard deviations."""

MARGIN = 1.1
"""Radius, in that of the ellipse in a box, within which an object is taken to cover: it should keep clear."""


def room_for_farther(low: Tensor, high: Tensor, spread: Tensor, locations: LocationTensors) -> Tensor:
    """Choose for each instance how much smaller its guessed extent is best made.

    The most likely factor, of a log-normal guess that must not cover: least `log(f)^2 / (2 spread^2) + PENALTY *
    covered`, the shares of the strokes of farther instances within the ellipse, summed.

    Args:
        low: (B, N, 2) x0 y0 of the guesses, fractions.
        high: (B, N, 2) x1 y1.
        spread: (B, N) standard deviation of the logarithm of the sides.
        locations: N slots of B images.

    Returns:
        (B, N), one of `FACTORS`; 1 where no farther instance is told by a point or a stroke.
    """
    stroked, pointed = locations.present["scribble"], locations.present["point"]
    points = torch.where(stroked[..., None, None], locations.scribbles, locations.points[..., None, :])
    order, known = locations.z_order, locations.z_known
    farther = (order[:, :, None] > order[:, None, :]) & known[:, :, None] & (known & (stroked | pointed))[:, None, :]
    factors = low.new_tensor(FACTORS)
    centre, radius = (low + high) / 2, ((high - low) / 2).clamp(min=1e-4)
    # (B, N, N, P): squared distance of every point of j from the centre of i, in radii of i.
    away = ((points[:, None] - centre[:, :, None, None]) / radius[:, :, None, None]).square().sum(-1)
    covered = away[..., None] <= (MARGIN * factors).square()
    shares = (covered.float().mean(-2) * farther[..., None]).sum(2)
    cost = (factors.log() / spread[..., None]).square() / 2 + PENALTY * shares
    return factors[cost.argmin(-1)]
