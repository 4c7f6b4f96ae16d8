"""Which object is in front in one picture, and how cleanly: whose pixels the overlap of two objects shows.

A detector says whose each pixel is. Where two objects overlap, the one in front has the pixels, and what belongs to
neither, or to the other one, is a blend.
"""

from __future__ import annotations

import numpy as np

from instancediffusion.scene import Instance

from ..seen import Bools, Floats, Overlap, Seen, resized

RIM_SHARE = 1 / 100
"""Width of the rim of an overlap that is not counted, in canvases: objects are off their locations by so much."""

LEAST_SHARE = 1 / 2048
"""Smallest overlap that is measured, as a fraction of the picture's area."""


def owned_overlap(seen: Seen, first: int, second: int, shared: Bools) -> Overlap | None:
    """Say whose the pixels of an overlap are.

    Args:
        seen: whose each pixel is.
        first: index of one instance in `seen`.
        second: of the other.
        shared: (H, W), where they overlap, of the size of the labels.

    Returns:
        None if that is too small to say anything.
    """
    region = without_rim(shared)
    if region.sum() < LEAST_SHARE * region.size:
        return None
    fractions = [float(seen.mask(index)[region].mean()) for index in (first, second)]
    return Overlap(fractions[0], fractions[1], int(region.sum()))


def told_extent(told: Instance, size: tuple[int, int]) -> Bools | None:
    """Return where all of an instance is, as given, hidden parts too, on a canvas of (height, width).

    It is the mask, else the box; points and strokes give none.
    """
    if told.mask is not None:
        return resized(told.mask.array.astype(np.uint8), size) > 0
    return None if told.box is None else box_pixels(np.array(told.box.xyxy), size)


def box_pixels(box: Floats, size: tuple[int, int]) -> Bools:
    """Return the pixels (H, W) of a canvas of (height, width) whose middles lie in a box x0 y0 x1 y1, fractions."""
    height, width = size
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    inside: Bools = ((y >= box[1]) & (y < box[3]))[:, None] & ((x >= box[0]) & (x < box[2]))
    return inside


def without_rim(shared: Bools) -> Bools:
    """Return what counts of an overlap (H, W): all but its rim, or all of it if nothing else would be left."""
    inner = shrunk(shared, max(1, round(RIM_SHARE * max(shared.shape))))
    return inner if inner.sum() >= LEAST_SHARE * shared.size else shared.copy()


def shrunk(mask: Bools, pixels: int) -> Bools:
    """Return the pixels of a mask whose whole neighbourhood, so many pixels up, down, left and right, is in it."""
    result = np.pad(mask, 1)
    for _ in range(pixels):
        inner = result.copy()
        inner[1:] &= result[:-1]
        inner[:-1] &= result[1:]
        inner[:, 1:] &= result[:, :-1]
        inner[:, :-1] &= result[:, 1:]
        result = inner
    return result[1:-1, 1:-1]
