"""A bitmap as 256 points: 128 along its outlines and 128 inside (the mask input of UniFusion, paper section 3.1)."""

from __future__ import annotations  # else annotations would load all of numpy.random

import numpy as np
import numpy.typing as npt

from .contours import outlines

NUM_MASK_POINTS = 256
_HALF = NUM_MASK_POINTS // 2


def mask_points(mask: npt.NDArray[np.bool_], rng: np.random.Generator, *, published: bool) -> npt.NDArray[np.float64]:
    """Return the points that stand for a bitmap.

    Half of them are vertices taken evenly along the outlines, half are set pixels taken evenly by their distance from
    the centroid; all are then sorted by distance from the canvas's origin.

    Args:
        mask: (height, width) bool.
        rng: draws the inner points of a bitmap with fewer than 128 set pixels; not touched otherwise.
        published: reproduce what the published weights were trained on: outlines one pixel too far right and down
            and through the pixels around the object, inner points at pixel corners. Otherwise outlines follow the
            edges of pixels and inner points are pixel centres, so that all points lie in the object's box.

    Returns:
        (256, 2) float64, (x, y) in fractions of the canvas; in 0..1, except that published points may leave the
        right and lower edge by up to two pixels. All zero for an empty bitmap.
    """
    bitmap = np.asarray(mask, dtype=bool)
    if bitmap.ndim != 2:
        raise ValueError(f"a bitmap has two axes, this has shape {bitmap.shape}")
    if not bitmap.any():
        return np.zeros((NUM_MASK_POINTS, 2))
    height, width = bitmap.shape
    edge = _outline_points(bitmap, published)
    inner = _inner_points(bitmap, rng, published) + (0.0 if published else 0.5)
    points = np.concatenate([inner, edge])
    # Whole numbers (points are multiples of a half pixel), so that equal distances are exactly equal.
    key = np.rint(2 * points * (height, width)).astype(np.int64)
    order = np.argsort((key * key).sum(axis=1), kind="stable")
    return points[order] / (width, height)


def _outline_points(mask: npt.NDArray[np.bool_], published: bool) -> npt.NDArray[np.float64]:
    """Return (128, 2) vertices (x, y) in pixels, evenly along all outlines joined in order."""
    # The border of one unset pixel closes every outline. Its offset is the published shift by (1, 1); otherwise half
    # of it is taken back: 1 for the border, less 1/2 from a pixel's centre to its corner.
    curves = outlines(np.pad(mask, 1), at_background=published)
    closed = [c if (c[0] == c[-1]).all() else np.concatenate([c, c[:1]]) for c in curves]
    vertices = np.concatenate(closed)[:, ::-1] - (0.0 if published else 0.5)
    return vertices[np.linspace(0, len(vertices) - 1, _HALF).astype(np.int64)]


def _inner_points(mask: npt.NDArray[np.bool_], rng: np.random.Generator, published: bool) -> npt.NDArray[np.float64]:
    """Return (128, 2) set pixels (x, y): the middle one of each of 128 equal runs by distance from the centroid."""
    rows, columns = np.nonzero(mask)
    pixels = np.stack([columns, rows], axis=1)
    if len(pixels) < _HALF:
        return pixels[rng.integers(len(pixels), size=_HALF)].astype(np.float64)
    order = np.argsort(_published_distance(pixels) if published else _squared_distance(pixels), kind="stable")
    run = len(pixels) // _HALF
    return pixels[order[np.arange(_HALF) * run + run // 2]].astype(np.float64)


def _squared_distance(pixels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the squared distance from the centroid times a constant, exact: ties stay in reading order."""
    # Quarters of a pixel are enough for an even spread, and keep the squares small.
    centre = np.rint(4 * pixels.mean(axis=0)).astype(np.int64)
    offset: npt.NDArray[np.int64] = 4 * pixels - centre
    squared: npt.NDArray[np.int64] = (offset * offset).sum(axis=1)
    return squared


def _published_distance(pixels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return distances from the centroid rounded as the published code's library rounds them.

    There the squares are summed with a fused multiply-add, y first: x*x enters unrounded. Pixels at equal distance
    are ordered by that rounding, so it is repeated here: x*x is split into its rounded value and the exact rest.
    """
    x, y = (pixels - pixels.mean(axis=0)).T
    squared_y, squared_x = y * y, x * x
    split = 134217729.0 * x  # 2**27 + 1: cuts x into two halves whose products are exact (Dekker 1971)
    high = split - (split - x)
    low = x - high
    rest_x = ((high * high - squared_x) + 2 * high * low) + low * low
    total = squared_x + squared_y
    carried = total - squared_x
    rest_sum = (squared_x - (total - carried)) + (squared_y - carried)
    distance: npt.NDArray[np.float64] = np.sqrt(total + (rest_x + rest_sum))
    return distance
