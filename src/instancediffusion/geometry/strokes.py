"""Strokes of a fixed number of points, as the scribble tokens take them."""

from __future__ import annotations  # else annotations would load all of numpy.random

import numpy as np
import numpy.typing as npt

NUM_SCRIBBLE_POINTS = 20


def resample_scribble(
    points: npt.ArrayLike, n: int = NUM_SCRIBBLE_POINTS, *, published: bool = False
) -> npt.NDArray[np.float64]:
    """Return a stroke as `n` points sorted by distance from the canvas's origin.

    The model knows a scribble as 20 points of the object without an order of drawing, so the result is sorted. A
    stroke of exactly `n` points keeps them; any other is walked at even steps, both ends included.

    Args:
        points: (k, 2), k >= 1, (x, y) in any unit.
        n: number of points to return.
        published: the published resampling: of k points sorted by distance, the first n at steps of k // n if there
            are enough of them (the far end of the stroke may be left out), else each repeated.

    Returns:
        (n, 2) float64 in the unit of `points`.
    """
    stroke = np.asarray(points, dtype=np.float64)
    if stroke.ndim != 2 or stroke.shape[1] != 2 or len(stroke) == 0:
        raise ValueError(f"a stroke has shape (k, 2) with k >= 1, this has {stroke.shape}")
    if published:
        ordered = _by_distance(stroke)
        steps = np.arange(n)
        return ordered[steps * (len(ordered) // n) if len(ordered) >= n else steps * len(ordered) // n]
    return _by_distance(stroke if len(stroke) == n else _even_steps(stroke, n))


def scribble_from_mask(
    mask: npt.NDArray[np.bool_],
    rng: np.random.Generator,
    n: int = NUM_SCRIBBLE_POINTS,
    *,
    published: bool = False,
) -> npt.NDArray[np.float64]:
    """Return `n` random set pixels sorted by distance from the canvas's origin: what training calls a scribble.

    Args:
        mask: (height, width) bool.
        rng: draws the pixels, without replacement if there are at least `n`.
        n: number of points.
        published: give a pixel's upper left corner instead of its centre.

    Returns:
        (n, 2) float64, (x, y) in fractions of the canvas. All zero for an empty bitmap.
    """
    rows, columns = np.nonzero(mask)
    if len(rows) == 0:
        return np.zeros((n, 2))
    chosen = rng.choice(len(rows), size=n, replace=len(rows) < n)
    height, width = mask.shape
    pixels = np.stack([columns[chosen], rows[chosen]], axis=1) + (0.0 if published else 0.5)
    return _by_distance(pixels / (width, height))


def _by_distance(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return points[np.argsort((points * points).sum(axis=1), kind="stable")]


def _even_steps(stroke: npt.NDArray[np.float64], n: int) -> npt.NDArray[np.float64]:
    """Walk a polyline at n even steps; a stroke without length repeats its point."""
    legs = np.hypot(*np.diff(stroke, axis=0).T)
    travelled = np.concatenate([[0.0], np.cumsum(legs)])
    at = np.linspace(0.0, travelled[-1], n)
    return np.stack([np.interp(at, travelled, stroke[:, axis]) for axis in (0, 1)], axis=1)
