"""Boxes; files write them either as two corners, or as corner and size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..canvas import Canvas, box_to_pixels, clamp, on_edge
from ..checks import check_numbers
from ..limits import MAX_SIDE_PX
from ..problem_report import FRACTIONS, Report, number_text, numbers_text
from .kind import BoxUnit, Brush, Colour, TokenLocation, check_fractions, inside


@dataclass(frozen=True)
class Box(TokenLocation):
    """An upright rectangle, upper left corner (x0, y0) to lower right (x1, y1), each in 0..1.

    Raises:
        SceneError: a value is no finite number, lies outside 0..1, or the box has no area.
    """

    kind: ClassVar = "box"
    layer: ClassVar = 1.0

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        report = Report()
        check_fractions(report, self, ("x0", "y0", "x1", "y1"))
        if not report.failed:
            for low, high in (("x0", "x1"), ("y0", "y1")):
                if getattr(self, high) <= getattr(self, low):
                    message = f"is {getattr(self, high)}, not beyond {low} = {getattr(self, low)}"
                    report.error(f"$.{high}", message, "give two corners (x0, y0, x1, y1), not a corner and a size")
        report.settle()

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        """The two corners, fractions."""
        return (self.x0, self.y0, self.x1, self.y1)

    @property
    def centre(self) -> tuple[float, float]:
        """The middle (x, y), fractions."""
        return ((self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2)

    @classmethod
    def read(
        cls,
        report: Report,
        path: str,
        value: object,
        canvas: Canvas | None,
        folder: Path | None = None,  # noqa: ARG003
    ) -> Box | None:
        """Read [x0, y0, x1, y1] in pixels; see `read_box`."""
        return read_box(report, path, value, canvas)

    def write(self, canvas: Canvas) -> list[float]:
        """Return [x0, y0, x1, y1] in pixels."""
        return box_to_pixels(self, canvas)

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """Four numbers."""
        return {
            "type": "array",
            "description": "Upper left and lower right corner [x0, y0, x1, y1] in pixels, x0 < x1 and y0 < y1.",
            "items": {"type": "number"},
            "minItems": 4,
            "maxItems": 4,
        }

    def coordinates(self, *, published: bool = False) -> npt.NDArray[np.float64]:  # noqa: ARG002
        """Return (4,), the corners."""
        return np.array(self.xyxy)

    @property
    def extent(self) -> BoxUnit:
        """The corners."""
        return self.xyxy

    def crop(self, frame: BoxUnit) -> Box:
        """Return the part inside."""
        return Box(*inside(frame, self.x0, self.y0), *inside(frame, self.x1, self.y1))

    def draw(self, brush: Brush, colour: Colour, paper: Colour, size: tuple[int, int]) -> None:  # noqa: ARG002
        """Draw a frame, thinly filled."""
        x0, y0, x1, y1 = self.xyxy
        corners = (x0 * size[0], y0 * size[1], x1 * size[0], y1 * size[1])
        brush.rectangle(corners, fill=colour, opacity=0.10, stroke=colour, width=2)


def read_box(report: Report, path: str, value: object, canvas: Canvas | None) -> Box | None:
    """Read [x0, y0, x1, y1] in pixels. One that leaves the canvas is cut off, with a warning."""
    corners = check_numbers(report, path, value, 4, "[x0, y0, x1, y1] in pixels")
    if corners is None:
        return None
    x0, y0, x1, y1 = corners
    if x1 <= x0 or y1 <= y0:
        message, fix = _no_area(corners, canvas)
        report.fault(path, message, fix)
        return None
    return None if canvas is None else _cut(report, path, corners, canvas)


def read_box_xywh(report: Report, path: str, value: object, canvas: Canvas | None) -> Box | None:
    """Read [x, y, width, height] in pixels. One that leaves the canvas is cut off, with a warning."""
    found = check_numbers(report, path, value, 4, "[x, y, width, height] in pixels")
    if found is None:
        return None
    x, y, width, height = found
    if width <= 0 or height <= 0:
        report.fault(path, f"has no area: it is {number_text(width)} x {number_text(height)} pixels", "give it a size")
        return None
    if canvas is None:
        return None
    hint = ""
    if (x + width > canvas.width or y + height > canvas.height) and looks_like_corners(found, canvas):
        meant = numbers_text([x, y, width - x, height - y])
        hint = f"it looks like [x0, y0, x1, y1]: as [x, y, width, height] that is {meant}"
    return _cut(report, path, [x, y, x + width, y + height], canvas, hint)


def looks_like_corners(box: list[float], canvas: Canvas) -> bool:
    """Whether [x, y, width, height] also reads as two corners on the canvas."""
    x, y, right, bottom = box
    return 0 <= x < right <= canvas.width and 0 <= y < bottom <= canvas.height


def _cut(report: Report, path: str, corners: list[float], canvas: Canvas, hint: str = "") -> Box | None:
    """Cut a box that has an area off at the canvas."""
    sides = (canvas.width, canvas.height) * 2
    corners = [on_edge(value, side) for value, side in zip(corners, sides, strict=True)]
    x0, y0, x1, y1 = corners
    clipped = [clamp(value, side) for value, side in zip(corners, sides, strict=True)]
    units = [value / side for value, side in zip(clipped, sides, strict=True)]
    if x1 <= 0 or y1 <= 0 or x0 >= canvas.width or y0 >= canvas.height:
        fix = hint or f"lengths are pixels; the canvas is {canvas.box}"
        report.fault(path, f"{numbers_text(corners)} lies outside the {canvas} canvas", fix)
        return None
    if not (units[0] < units[2] and units[1] < units[3]):
        report.fault(path, f"{numbers_text(corners)} has no area on the canvas", "make it larger")
        return None
    if clipped != corners:
        message = f"{numbers_text(corners)} reaches outside the {canvas} canvas and was cut to {numbers_text(clipped)}"
        report.warn(path, message, hint or "keep it on the canvas")
    elif max(corners) <= 1:
        message = f"{numbers_text(corners)} lies within one pixel"
        report.warn(path, message, FRACTIONS)
    return Box(*units)


def _no_area(corners: list[float], canvas: Canvas | None) -> tuple[str, str]:
    """Say what is wrong with a box whose second corner is not beyond its first, and what was perhaps meant."""
    x0, y0, x1, y1 = corners
    known = canvas or Canvas(MAX_SIDE_PX, MAX_SIDE_PX)
    turned = x0 != x1 and y0 != y1
    message = f"{numbers_text(corners)} " + ("has its second corner before the first" if turned else "has no area")
    if x1 > 0 and y1 > 0 and 0 <= x0 and x0 + x1 <= known.width and 0 <= y0 and y0 + y1 <= known.height:
        meant = numbers_text([x0, y0, x0 + x1, y0 + y1])
        return f"{message}: it looks like [x, y, width, height]", f"boxes are two corners, write {meant}"
    if turned:
        return message, f"write {numbers_text([min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)])}"
    return message, "give it two different corners, or use a point"
