"""Points: a position somewhere on the object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..canvas import Canvas, on_edge, point_to_pixels
from ..checks import check_pair
from ..problem_report import FRACTIONS, Report, numbers_text
from .kind import BoxUnit, Brush, Colour, TokenLocation, check_fractions, inside


@dataclass(frozen=True)
class Point(TokenLocation):
    """A position (x, y) somewhere on the object, each in 0..1; `SceneError` otherwise."""

    kind: ClassVar = "point"
    layer: ClassVar = 3.0
    margin_px: ClassVar = 8.0

    x: float
    y: float

    def __post_init__(self) -> None:
        report = Report()
        check_fractions(report, self, ("x", "y"))
        report.settle()

    @classmethod
    def read(
        cls,
        report: Report,
        path: str,
        value: object,
        canvas: Canvas | None,
        folder: Path | None = None,  # noqa: ARG003
    ) -> Point | None:
        """Read [x, y] in pixels; see `read_point`."""
        return read_point(report, path, value, canvas)

    def write(self, canvas: Canvas) -> list[float]:
        """Return [x, y] in pixels."""
        return point_to_pixels(self.x, self.y, canvas)

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """Two numbers."""
        return {"$ref": "#/$defs/position", "description": "A place on the object [x, y] in pixels."}

    def coordinates(self, *, published: bool = False) -> npt.NDArray[np.float64]:  # noqa: ARG002
        """Return (2,)."""
        return np.array([self.x, self.y])

    @property
    def extent(self) -> BoxUnit:
        """A box without area."""
        return (self.x, self.y, self.x, self.y)

    def crop(self, frame: BoxUnit) -> Point:
        """Return the same position."""
        return Point(*inside(frame, self.x, self.y))

    def draw(self, brush: Brush, colour: Colour, paper: Colour, size: tuple[int, int]) -> None:
        """Draw a ring with a dot."""
        centre = (self.x * size[0], self.y * size[1])
        brush.disc(centre, 8, fill=paper, stroke=colour, width=2)
        brush.disc(centre, 4, fill=colour, stroke=colour, width=1)


def read_point(report: Report, path: str, value: object, canvas: Canvas | None) -> Point | None:
    """Read [x, y] in pixels; it has to lie on the canvas."""
    pair = check_pair(report, path, value)
    if pair is None or canvas is None:
        return None
    pair = (on_edge(pair[0], canvas.width), on_edge(pair[1], canvas.height))
    if not (0 <= pair[0] <= canvas.width and 0 <= pair[1] <= canvas.height):
        report.fault(
            path, f"{numbers_text(pair)} lies outside the {canvas} canvas", "lengths are pixels of width and height"
        )
        return None
    if max(pair) <= 1 and pair not in ((0, 0), (1, 1)):
        report.warn(path, f"{numbers_text(pair)} lies within one pixel", FRACTIONS)
    return Point(pair[0] / canvas.width, pair[1] / canvas.height)
