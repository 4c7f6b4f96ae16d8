"""The canvas of a file, and lengths on it: pixels in files, fractions in scenes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from .checks import check_integer
from .limits import MAX_SIDE_PX, MIN_SIDE_PX
from .problem_report import Report, child


@dataclass(frozen=True)
class Canvas:
    """Width and height in pixels, both known to be within bounds."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width} x {self.height}"

    @property
    def box(self) -> str:
        """The whole canvas as a box, as a file writes it."""
        return f"[0, 0, {self.width}, {self.height}]"


def read_canvas(report: Report, data: Mapping[str, object], path: str = "$") -> Canvas | None:
    """Read `width` and `height` of a JSON object; whether they are missing is noted elsewhere."""
    sides = [
        check_integer(report, child(path, key), data[key], MIN_SIDE_PX, MAX_SIDE_PX) if key in data else None
        for key in ("width", "height")
    ]
    width, height = sides
    return Canvas(width, height) if width is not None and height is not None else None


def to_pixels(fraction: float, side: int) -> float:
    """Return the shortest pixel value that reads back as this fraction of a side; an int where that will do."""
    exact = fraction * side
    for digits in range(13):
        short = round(exact, digits)
        if short / side == fraction:
            return int(short) if digits == 0 else short
    neighbours = (exact, math.nextafter(exact, math.inf), math.nextafter(exact, -math.inf))
    return next((value for value in neighbours if value / side == fraction), exact)


class _Corners(Protocol):
    @property
    def xyxy(self) -> tuple[float, float, float, float]: ...


def box_to_pixels(box: _Corners, canvas: Canvas) -> list[float]:
    """Return [x0, y0, x1, y1] in pixels."""
    sides = (canvas.width, canvas.height) * 2
    return [to_pixels(value, side) for value, side in zip(box.xyxy, sides, strict=True)]


def extent_to_pixels(corners: list[float]) -> list[float]:
    """Return [x, y, width, height] of two corners, without the noise of the subtraction where there is any."""
    x0, y0, x1, y1 = corners
    return [x0, y0, _difference(x1, x0), _difference(y1, y0)]


def _difference(end: float, start: float) -> float:
    exact = end - start
    for digits in range(13):
        short = round(exact, digits)
        if start + short == end:
            return int(short) if digits == 0 else short
    return exact


def point_to_pixels(x: float, y: float, canvas: Canvas) -> list[float]:
    """Return [x, y] in pixels."""
    return [to_pixels(x, canvas.width), to_pixels(y, canvas.height)]


ROUNDING = 1e-9
"""Fraction of a side by which a length that was computed (from percent, say) may miss the edge it means."""


def on_edge(value: float, side: int) -> float:
    """Return a length in pixels, one that misses 0 or the side by mere rounding moved there."""
    near = clamp(value, side)
    return near if abs(value - near) <= ROUNDING * side else value


def clamp(value: float, side: int) -> float:
    """Return a length in pixels cut off at 0 and at a side."""
    return min(max(value, 0.0), float(side))
