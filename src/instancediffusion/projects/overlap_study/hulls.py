"""Convex hulls of bitmaps: what a hidden object reaches at least, if it has no dents of its own."""

from __future__ import annotations

import numpy as np

from instancediffusion.evaluation.seen import Bools
from instancediffusion.geometry import fill_rings


def hull(mask: Bools) -> Bools:
    """Return the pixels (H, W) in the convex hull of a bitmap's, by their middles; none if it is empty.

    The corners are found by Andrew's monotone chain (1979).
    """
    points: list[tuple[int, int]] = []
    for row in np.flatnonzero(mask.any(axis=1)):
        columns = np.flatnonzero(mask[row])
        points += [(int(columns[0]), int(row)), (int(columns[-1]), int(row))]
    points = sorted(set(points))
    if not points:
        return mask.copy()
    ring = _chain(points) + _chain(points[::-1])
    filled: Bools = fill_rings([np.array(ring, np.float64).reshape(-1, 2) + 0.5], (mask.shape[0], mask.shape[1]))
    return filled | mask


def _chain(points: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return one side of the hull of points sorted by x, without its last point."""
    kept: list[tuple[int, int]] = []
    for x, y in points:
        while len(kept) > 1:
            (x0, y0), (x1, y1) = kept[-2:]
            if (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) > 0:
                break
            kept.pop()
        kept.append((x, y))
    return kept[:-1]
