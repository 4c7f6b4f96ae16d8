"""Polygons to bitmaps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .contours import outlines

_CROSSINGS = 1 << 20


def fill_rings(rings: Sequence[npt.NDArray[np.float64]], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the pixels whose centre lies inside an odd number of closed rings: a polygon, its holes, and so on.

    Args:
        rings: (k, 2) corners (x, y) each, in pixels, finite; the last is joined to the first. Parts off the canvas
            are cut off.
        size: (height, width) in pixels.

    Returns:
        (height, width) bool.
    """
    height, width = size
    if not len(rings):
        return np.zeros(size, dtype=bool)
    start = np.concatenate(rings)
    end = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    upper, lower = np.where(start[:, 1:] <= end[:, 1:], (start, end), (end, start))
    # Rows whose centre line an edge crosses; at a corner shared by two edges only one of them counts.
    first = np.clip(np.ceil(upper[:, 1] - 0.5), 0, height).astype(np.int64)
    last = np.clip(np.ceil(lower[:, 1] - 0.5), 0, height).astype(np.int64)
    turns = np.zeros(height * (width + 1), dtype=np.uint8)
    block = max(1, _CROSSINGS // height)
    for begin in range(0, len(start), block):
        part = slice(begin, begin + block)
        counts = last[part] - first[part]
        edge = np.repeat(np.arange(begin, begin + len(counts)), counts)
        offset = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
        row = first[edge] + offset
        slope = (lower[edge, 0] - upper[edge, 0]) / (lower[edge, 1] - upper[edge, 1])
        x = upper[edge, 0] + (row + 0.5 - upper[edge, 1]) * slope
        column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
        where, times = np.unique(row * (width + 1) + column, return_counts=True)
        turns[where] += (times % 2).astype(np.uint8)
    odd = (turns % 2 == 1).reshape(height, width + 1)[:, :width]
    return np.logical_xor.accumulate(odd, axis=1)


def mask_ring(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return one closed ring that `fill_rings` turns into the same bitmap again, for formats that hold one polygon.

    Holes and separate parts are joined to the first outline by bridges that are walked there and back, so that they
    enclose nothing.

    Args:
        mask: (height, width) bool, at least one pixel set.

    Returns:
        (k, 2) corners (x, y) in pixels; the last is joined to the first.
    """
    rings = []
    for curve in outlines(np.pad(mask, 1), at_background=False):
        corners = curve[:-1, ::-1] - 0.5  # half a pixel from a centre to its corner, less one of the padding
        before, after = corners - np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0) - corners
        rings.append(corners[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]])
    anchor = rings[0][:1]
    bridged = [part for ring in rings[1:] for part in (anchor, ring, ring[:1])]
    return np.concatenate([rings[0], *bridged, *([anchor] if bridged else [])])
