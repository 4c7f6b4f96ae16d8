"""Scribbles: strokes drawn over the object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from instancediffusion.geometry import NUM_SCRIBBLE_POINTS, points_box, resample_scribble

from ..canvas import Canvas, clamp, on_edge, point_to_pixels
from ..checks import check_pair, is_array
from ..limits import MAX_SCRIBBLE_POINTS
from ..problem_report import FRACTIONS, Report, child, kind, show
from .kind import IN_FRACTIONS, BoxUnit, Brush, Colour, TokenLocation, as_list, inside


@dataclass(frozen=True)
class Scribble(TokenLocation):
    """A stroke drawn over the object.

    Attributes:
        points: two or more (x, y), each in 0..1; any sequence of pairs is taken. `SceneError` otherwise.
    """

    kind: ClassVar = "scribble"
    layer: ClassVar = 2.0
    margin_px: ClassVar = 5.0

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        report, points = Report(), as_list(self.points)
        if not is_array(points):
            report.error("$.points", f"is {kind(points)}, not a sequence of (x, y)", "write [(x, y), (x, y), ...]")
        elif not 2 <= len(points) <= MAX_SCRIBBLE_POINTS:
            report.error(
                "$.points", f"has {len(points)} points, not 2..{MAX_SCRIBBLE_POINTS}", "use Point for a single place"
            )
        else:
            pairs = [_check_place(report, index, point) for index, point in enumerate(points)]
            object.__setattr__(self, "points", tuple(pair for pair in pairs if pair is not None))
        report.settle()

    @classmethod
    def read(
        cls,
        report: Report,
        path: str,
        value: object,
        canvas: Canvas | None,
        folder: Path | None = None,  # noqa: ARG003
    ) -> Scribble | None:
        """Read [[x, y], ...] in pixels; see `read_scribble`."""
        return read_scribble(report, path, value, canvas)

    def write(self, canvas: Canvas) -> list[list[float]]:
        """Return [[x, y], ...] in pixels."""
        return [point_to_pixels(x, y, canvas) for x, y in self.points]

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """Two or more points."""
        return {
            "type": "array",
            "description": "A stroke over the object [[x, y], ...] in pixels.",
            "items": {"$ref": "#/$defs/position"},
            "minItems": 2,
            "maxItems": MAX_SCRIBBLE_POINTS,
        }

    def coordinates(self, *, published: bool = False) -> npt.NDArray[np.float64]:  # noqa: ARG002
        """Return (20, 2), points at even distances along the stroke."""
        return resample_scribble(np.asarray(self.points), NUM_SCRIBBLE_POINTS)

    @property
    def extent(self) -> BoxUnit:
        """The box of its points, which may have no area."""
        return points_box(self.points)

    def crop(self, frame: BoxUnit) -> Scribble:
        """Return the same stroke, point by point."""
        return Scribble(tuple(inside(frame, x, y) for x, y in self.points))

    def draw(self, brush: Brush, colour: Colour, paper: Colour, size: tuple[int, int]) -> None:
        """Draw the stroke and a dot where it begins."""
        path = [(x * size[0], y * size[1]) for x, y in self.points]
        brush.line(path, stroke=paper, width=6)
        brush.line(path, stroke=colour, width=3.5)
        brush.disc(path[0], 5, fill=colour, stroke=paper, width=1.5)


def _check_place(report: Report, index: int, point: object) -> tuple[float, float] | None:
    """Return one point of a stroke as a pair of fractions."""
    if type(point) is tuple and len(point) == 2 and all(type(v) is float and 0 <= v <= 1 for v in point):
        return point
    path = f"$.points[{index}]"
    pair = check_pair(report, path, as_list(point))
    if pair is not None and not all(0 <= value <= 1 for value in pair):
        report.error(path, f"is {show(pair)}, outside 0..1", IN_FRACTIONS)
    return pair


def read_scribble(report: Report, path: str, value: object, canvas: Canvas | None) -> Scribble | None:
    """Read [[x, y], ...] in pixels. Points off the canvas are moved to its edge, with a warning."""
    if not is_array(value):
        report.error(path, f"is {kind(value)}, not an array", "write [[x0, y0], [x1, y1], ...]")
        return None
    if value and not any(is_array(item) for item in value):
        report.error(path, "is a flat list, not a list of points", "write [[x0, y0], [x1, y1], ...]")
        return None
    if len(value) > MAX_SCRIBBLE_POINTS:
        report.error(path, f"has {len(value)} points", f"use at most {MAX_SCRIBBLE_POINTS}")
        return None
    if len(value) < 2:
        has = "one point" if value else "no points"
        report.fault(path, f"has {has}, but a stroke needs two", "add points, or use a point")
        return None
    points = _points(report, path, value)
    if points is None or canvas is None:
        return None
    points = [(on_edge(x, canvas.width), on_edge(y, canvas.height)) for x, y in points]
    moved = [(clamp(x, canvas.width), clamp(y, canvas.height)) for x, y in points]
    outside = sum(old != new for old, new in zip(points, moved, strict=True))
    if outside == len(points):
        report.fault(path, f"lies outside the {canvas} canvas with every point", "draw it on the canvas")
        return None
    if outside:
        message = f"has {outside} of {len(points)} points outside the {canvas} canvas; they were moved to its edge"
        report.warn(path, message, "draw it on the canvas")
    elif max(value for point in points for value in point) <= 1:
        report.warn(path, "lies within one pixel", FRACTIONS)
    return Scribble(tuple((x / canvas.width, y / canvas.height) for x, y in moved))


def _points(report: Report, path: str, value: Sequence[Any]) -> list[tuple[float, float]] | None:
    """Return the points of a stroke, or None if any is no pair of finite numbers."""
    plain = [
        (float(item[0]), float(item[1]))
        for item in value
        if type(item) is list and len(item) == 2 and all(type(v) in (int, float) and abs(v) < 1e9 for v in item)
    ]
    if len(plain) == len(value):  # the usual case, without a path for each number
        return plain
    pairs = [check_pair(report, child(path, index), item) for index, item in enumerate(value)]
    points = [pair for pair in pairs if pair is not None]
    return points if len(points) == len(pairs) else None
