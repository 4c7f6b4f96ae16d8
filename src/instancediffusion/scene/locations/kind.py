"""What a kind of location is: one class that is read, written, given to the network, cut, and drawn.

Lengths are fractions of the canvas, x to the right, y down.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ..canvas import Canvas
from ..checks import check_number
from ..problem_report import Report, show

BoxUnit = tuple[float, float, float, float]
"""x0, y0, x1, y1 in fractions of a canvas."""

Colour = tuple[int, int, int]


class Brush(Protocol):
    """The strokes a location is drawn with; `rendering.painter.Painter` has them. Lengths are pixels."""

    def rectangle(
        self, box: BoxUnit, *, fill: Colour | None = None, opacity: float = 1.0, stroke: Colour | None = None,
        width: float = 1.0, radius: float = 0.0,
    ) -> None:  # fmt: skip
        """Draw a rectangle; `opacity` is that of the filling."""

    def line(self, path: Any, *, stroke: Colour, width: float) -> None:
        """Draw a line through points (x, y), with round ends."""

    def disc(self, centre: tuple[float, float], radius: float, *, fill: Colour, stroke: Colour, width: float) -> None:
        """Draw a disc with a rim."""

    def region(self, rings: Any, *, fill: Colour, opacity: float, width: float) -> None:
        """Fill what lies inside an odd number of rings (k, 2), and draw the rings."""


class Location(ABC):
    """Where an instance is, given in one way. A kind of your own is a subclass, and `register_location` adds it.

    The network takes boxes, points, scribbles and masks (paper, section 3.1): another kind says what it is in these.
    All else follows from that, and may be said better.

    Attributes:
        kind: its name, the key in files.
        layer: what has a larger one is drawn over what has a smaller one.
        margin_px: what is drawn round its extent.
    """

    kind: ClassVar[str]
    layer: ClassVar[float] = 1.5
    margin_px: ClassVar[float] = 0.0

    @classmethod
    @abstractmethod
    def read(
        cls, report: Report, path: str, value: object, canvas: Canvas | None, folder: Path | None = None
    ) -> Location | None:
        """Read what a file of the native format states, lengths in pixels.

        Args:
            report: takes every problem.
            path: of the value in the file.
            value: the JSON value.
            canvas: None where the file states none that can be used.
            folder: where files lie that the value names.

        Returns:
            The location, or None if there is a problem.
        """

    @abstractmethod
    def write(self, canvas: Canvas) -> Any:
        """Return the JSON value that `read` gives the same location of."""

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of that value."""
        return {}

    @abstractmethod
    def given(self, size: tuple[int, int]) -> Mapping[str, Location]:
        """Return what the network is given: some of "box", "point", "scribble" and "mask".

        Args:
            size: (height, width) of the canvas in pixels, which masks have.
        """

    def draw(self, brush: Brush, colour: Colour, paper: Colour, size: tuple[int, int]) -> None:
        """Draw it on a canvas of (width, height) pixels; by itself, what the network is given."""
        shown = self.given((size[1], size[0])).values()
        for location in sorted(shown, key=lambda one: one.layer):
            location.draw(brush, colour, paper, size)


class TokenLocation(Location):
    """A kind that the network has tokens for."""

    def given(self, size: tuple[int, int]) -> Mapping[str, Location]:  # noqa: ARG002
        """Return itself."""
        return {self.kind: self}

    @abstractmethod
    def coordinates(self, *, published: bool = False) -> npt.NDArray[Any]:
        """Return the numbers that the network takes, fractions (x, y, ...).

        Args:
            published: as the published code computes them, with its faults.
        """

    @property
    @abstractmethod
    def extent(self) -> BoxUnit:
        """What it covers at least; a point covers nothing."""

    @abstractmethod
    def crop(self, frame: BoxUnit) -> TokenLocation:
        """Return it in fractions of a part of the canvas; what lies outside is cut off or moved to the border."""


LOCATIONS: dict[str, type[Location]] = {}
"""The kinds of location by name. Those of the network come first, in the order of their tokens."""

_Kind = TypeVar("_Kind", bound=type[Location])


def register_location(kind: _Kind) -> _Kind:
    """Add a kind of location of your own, or replace one: scene files, pipelines, overlays and commands know it.

    Raises:
        ValueError: it has the name of a kind that the network has tokens for.
    """
    known = LOCATIONS.get(kind.kind)
    if known is not None and issubclass(known, TokenLocation):
        raise ValueError(f"{kind.kind}: is a kind that the network has tokens for; choose another name")
    LOCATIONS[kind.kind] = kind
    return kind


def inside(frame: BoxUnit, x: float, y: float) -> tuple[float, float]:
    """Return a point in fractions of a frame, moved to its border where it lies outside."""
    x0, y0, x1, y1 = frame
    return min(max((x - x0) / (x1 - x0), 0.0), 1.0), min(max((y - y0) / (y1 - y0), 0.0), 1.0)


def pixels_of(frame: BoxUnit, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the pixels (left, top, right, bottom) of a frame on a canvas of (height, width), one at least each way."""
    (height, width), (x0, y0, x1, y1) = size, frame
    left, top = min(int(x0 * width + 0.5), width - 1), min(int(y0 * height + 0.5), height - 1)
    return left, top, max(int(x1 * width + 0.5), left + 1), max(int(y1 * height + 0.5), top + 1)


IN_FRACTIONS = "lengths are fractions of the canvas, 0..1 (divide pixels by its width or height)"


def check_fractions(report: Report, location: object, names: tuple[str, ...]) -> None:
    """Check that attributes are numbers in 0..1, and store them as plain floats."""
    for name in names:
        number = check_number(report, f"$.{name}", getattr(location, name))
        if number is None:
            continue
        if not 0 <= number <= 1:
            report.error(f"$.{name}", f"is {show(number)}, outside 0..1", IN_FRACTIONS)
        object.__setattr__(location, name, number)


def as_list(value: object) -> object:
    """Return an array as lists, and anything else as it is."""
    return value.tolist() if isinstance(value, np.ndarray) else value
