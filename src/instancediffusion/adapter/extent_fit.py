"""Guesses of extents that fit outlines: a told point or stroke lies on its object, and can be seen.

A guess of how far an object reaches does not know its outline: the point that tells of a crescent moon may come to lie
in its hollow, and a nearer object may be guessed so large that it hides the stroke of a farther one altogether. So the
guess is moved and resized to the place that is most likely, given both (ours; not in the paper).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from instancediffusion.conditioning import LocationTensors

SHIFTS = (0.0, -0.1, 0.1, -0.2, 0.2, -0.3, 0.3)
"""How far a guess may be moved on each axis, in its sides."""

FACTORS = (1.0, 1.15, 0.87, 0.76, 0.66, 0.57, 0.5)
"""What its sides may be multiplied by."""

OFF, COVERED = 6.0, 3.0
"""What it costs, against half a square of standard deviations, to have one's own stroke wholly off the outline, and to
cover a farther instance's stroke wholly."""

TIE = 1e-4
"""What a later candidate costs more."""


@torch.no_grad()
def fitted_extents(
    centre: Tensor, sides: Tensor, spread: Tensor, outlines: Tensor, locations: LocationTensors
) -> Tensor:
    """Choose the most likely extent of each instance.

    Least `move^2 / 2 + resize^2 / 2`, in standard deviations of the guess, `+ OFF * share of its points or stroke off
    its outline + COVERED * shares of those of farther instances that its outline covers`.

    Args:
        centre: (B, N, 2) of the guesses, fractions of the canvas.
        sides: (B, N, 2) their width and height.
        spread: (B, N, 4) standard deviations: of the logarithms of the sides, and of the centre.
        outlines: (B, N, S, S) what of its extent each instance covers, 0..1, rows from top to bottom.
        locations: N slots of B images.

    Returns:
        (B, N, 4) xyxy. Each holds its own point or stroke, and lies on the canvas.
    """
    points, pointed = _points(locations)
    shift_y, shift_x, factor = torch.meshgrid(*(centre.new_tensor(v) for v in (SHIFTS, SHIFTS, FACTORS)), indexing="ij")
    shift, factor = torch.stack([shift_x, shift_y], -1).reshape(-1, 2), factor.reshape(-1)
    moved = shift * sides[:, :, None]
    half = sides[:, :, None] * factor[:, None] / 2
    # (B, N, K, 2) corners of K candidates
    low = torch.minimum(centre[:, :, None] + moved - half, points.amin(2)[:, :, None]).clamp(min=0)
    high = torch.maximum(centre[:, :, None] + moved + half, points.amax(2)[:, :, None]).clamp(max=1)
    move = (moved / spread[:, :, None, 2:]).square().sum(-1) / 2
    resize = (factor.log() / spread[..., :2].mean(-1, keepdim=True)).square() / 2
    near = functional.max_pool2d(outlines, 3, 1, 1)
    inner = -functional.max_pool2d(-outlines, 3, 1, 1)
    cost = move + resize + OFF * (1 - _covered(low, high, inner, points))
    order, known = locations.z_order, locations.z_known
    farther = (order[:, :, None] > order[:, None, :]) & known[:, :, None] & (known & pointed)[:, None, :]
    # One farther instance at a time: all pairs with all candidates at once would take gigabytes.
    for other in farther.flatten(0, 1).any(0).nonzero().flatten().tolist():
        hidden = _covered(low, high, near, points[:, other, None].expand_as(points))
        cost = cost + COVERED * farther[:, :, other, None] * hidden
    # Of candidates that are alike the first, whatever the rounding of a batch.
    cost = cost + TIE * torch.arange(len(factor), device=cost.device)
    best = cost.argmin(-1)[..., None, None].expand(-1, -1, 1, 2)
    return torch.cat([low.gather(2, best), high.gather(2, best)], -1)[:, :, 0]


def _points(locations: LocationTensors) -> tuple[Tensor, Tensor]:
    """The stroke, or else the point, of each instance, (B, N, P, 2); and which have one, (B, N) bool."""
    stroked, pointed = locations.present["scribble"], locations.present["point"]
    points = torch.where(stroked[..., None, None], locations.scribbles, locations.points[..., None, :])
    return points, stroked | pointed


def _covered(low: Tensor, high: Tensor, outlines: Tensor, points: Tensor) -> Tensor:
    """Share of points (B, N, P, 2) that outlines cover, laid in K candidates (B, N, K, 2): (B, N, K)."""
    side = outlines.shape[-1]
    place = (points[:, :, None] - low[:, :, :, None]) / (high - low).clamp(min=1e-4)[:, :, :, None]
    inside = ((place >= 0) & (place <= 1)).all(-1)
    column, row = (place * side).long().clamp(0, side - 1).unbind(-1)
    found = outlines.flatten(2).gather(2, (row * side + column).flatten(2)).unflatten(2, row.shape[2:])
    return (found * inside).mean(-1)
