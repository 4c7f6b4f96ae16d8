"""Where labels go, so that none covers another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .painter import Rect


@dataclass(frozen=True)
class Wish:
    """A label that wants a position.

    Attributes:
        sizes: (width, height) of its variants, the fullest first; the last is taken where no other fits.
        area: the box of what it names.
        anchor: a point of what it names, for labels that have to stand elsewhere.
    """

    sizes: Sequence[tuple[float, float]]
    area: Rect
    anchor: tuple[float, float]


@dataclass(frozen=True)
class Placement:
    """Where a label went: which of its variants, its rectangle, and whether it stands away from what it names."""

    variant: int
    rect: Rect
    apart: bool


class LabelPlacer:
    """Gives out positions on a picture, one after the other, none overlapping an earlier one.

    Args:
        bounds: the picture; no label leaves it.
        gap: free space kept around each label, in pixels.
    """

    def __init__(self, bounds: Rect, gap: float = 2.0) -> None:
        self._bounds = bounds
        self._gap = gap
        self._taken = np.zeros((0, 4))
        self._full = False

    def place(self, wish: Wish) -> Placement:
        """Find a free position: at the edges of the area, then on growing circles around the anchor."""
        for variant, size in enumerate(wish.sizes):
            rect = self._first_free(list(_near(wish.area, wish.anchor, size, self._gap)))
            if rect is not None:
                return self._take(Placement(variant, rect, apart=False))
        last = len(wish.sizes) - 1
        size = wish.sizes[last]
        rings = () if self._full else self._around(wish.anchor, size)
        rect = next((free for free in map(self._first_free, rings) if free is not None), None)
        if rect is None:
            self._full = True  # a search that failed once is not repeated
            rect = self._inside(_at(wish.anchor[0] - size[0] / 2, wish.anchor[1] - size[1] / 2, size))
        return self._take(Placement(last, rect, apart=True))

    def _take(self, placement: Placement) -> Placement:
        self._taken = np.concatenate([self._taken, [placement.rect]])
        return placement

    def _first_free(self, rects: Sequence[Rect]) -> Rect | None:
        """Return the first rectangle that is on the picture and clear of every label."""
        x0, y0, x1, y1 = self._bounds
        inside = [r for r in rects if r[0] >= x0 and r[1] >= y0 and r[2] <= x1 and r[3] <= y1]
        wanted, taken = np.array(inside).reshape(-1, 1, 4), self._taken[None]
        clear = (taken[..., :2] >= wanted[..., 2:] + self._gap) | (taken[..., 2:] <= wanted[..., :2] - self._gap)
        free = np.flatnonzero(clear.any(axis=-1).all(axis=-1))
        return inside[free[0]] if len(free) else None

    def _around(self, anchor: tuple[float, float], size: tuple[float, float]) -> Iterator[list[Rect]]:
        """Yield rings of positions around an anchor, growing outwards."""
        reach = max(self._bounds[2] - self._bounds[0], self._bounds[3] - self._bounds[1])
        step = max(size[1], 4.0)
        for ring in range(1, min(60, math.ceil(reach / step) + 1)):
            angles = [2 * math.pi * spoke / (8 * min(ring, 4)) for spoke in range(8 * min(ring, 4))]
            middles = [(anchor[0] + ring * step * math.cos(a), anchor[1] + ring * step * math.sin(a)) for a in angles]
            yield [self._inside(_at(x - size[0] / 2, y - size[1] / 2, size)) for x, y in middles]

    def _inside(self, rect: Rect) -> Rect:
        width, height = rect[2] - rect[0], rect[3] - rect[1]
        x = min(max(rect[0], self._bounds[0]), self._bounds[2] - width)
        y = min(max(rect[1], self._bounds[1]), self._bounds[3] - height)
        return _at(x, y, (width, height))


def _near(area: Rect, anchor: tuple[float, float], size: tuple[float, float], gap: float) -> Iterator[Rect]:
    """Yield positions at an area: inside its corners if it is wide enough, outside along its edges, at its anchor."""
    x0, y0, x1, y1 = area
    width, height = size
    if x1 - x0 >= width + 2 * gap and y1 - y0 >= height + 2 * gap:
        yield _at(x0 + gap, y0 + gap, size)
        yield _at(x1 - gap - width, y0 + gap, size)
        yield _at(x0 + gap, y1 - gap - height, size)
        yield _at(x1 - gap - width, y1 - gap - height, size)
        for fraction in (0.25, 0.5, 0.75):
            yield _at(x0 + fraction * (x1 - x0 - width), y0 + gap, size)
            yield _at(x0 + gap, y0 + fraction * (y1 - y0 - height), size)
            yield _at(x1 - gap - width, y0 + fraction * (y1 - y0 - height), size)
    for x in (x0, x1 - width, (x0 + x1 - width) / 2):
        yield _at(x, y0 - gap - height, size)
        yield _at(x, y1 + gap, size)
    for y in ((y0 + y1 - height) / 2, y0, y1 - height):
        yield _at(x1 + gap, y, size)
        yield _at(x0 - gap - width, y, size)
    yield _at(anchor[0] - width / 2, anchor[1] - height / 2, size)


def _at(x: float, y: float, size: tuple[float, float]) -> Rect:
    return (x, y, x + size[0], y + size[1])
