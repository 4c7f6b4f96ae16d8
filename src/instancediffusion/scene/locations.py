"""The four kinds of place an instance can have. All lengths are fractions of the canvas, x to the right, y down."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from instancediffusion.geometry import rle_area, rle_decode, rle_encode

from .checks import check_integer, check_number, check_pair, is_array
from .limits import MAX_SCRIBBLE_POINTS, MAX_SIDE_PX
from .png import read_png
from .report import Report, kind, show


@dataclass(frozen=True)
class Box:
    """An upright rectangle, upper left corner (x0, y0) to lower right (x1, y1), each in 0..1.

    Raises:
        SceneError: a value is no finite number, lies outside 0..1, or the box has no area.
    """

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        report = Report()
        _check_fractions(report, self, ("x0", "y0", "x1", "y1"))
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


@dataclass(frozen=True)
class Point:
    """A place (x, y) somewhere on the object, each in 0..1; `SceneError` otherwise."""

    x: float
    y: float

    def __post_init__(self) -> None:
        report = Report()
        _check_fractions(report, self, ("x", "y"))
        report.settle()


@dataclass(frozen=True)
class Scribble:
    """A stroke drawn over the object.

    Attributes:
        points: two or more (x, y), each in 0..1; any sequence of pairs is taken. `SceneError` otherwise.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        report, points = Report(), _as_list(self.points)
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


@dataclass(frozen=True)
class Mask:
    """The exact pixels of an object.

    Attributes:
        size: (height, width) in pixels; that of the scene's canvas.
        counts: COCO compressed run-length string, at least one pixel set. `SceneError` otherwise.
    """

    size: tuple[int, int]
    counts: str

    def __post_init__(self) -> None:
        report, size = Report(), _as_list(self.size)
        if not is_array(size) or len(size) != 2:
            report.error("$.size", f"is {show(size)}, not [height, width]", "write [height, width] in pixels")
        else:
            sides = [check_integer(report, f"$.size[{i}]", side, 1, MAX_SIDE_PX) for i, side in enumerate(size)]
            counts: object = self.counts
            if not isinstance(counts, str):
                report.error("$.counts", f"is {kind(counts)}, not a string", "use Mask.from_array")
            elif sides[0] is not None and sides[1] is not None:
                object.__setattr__(self, "size", (sides[0], sides[1]))
                _check_counts(report, counts, self.size)
        report.settle()

    @property
    def array(self) -> npt.NDArray[np.bool_]:
        """The bitmap, (height, width) bool; decoded anew at each use."""
        return rle_decode(self.counts, self.size)

    @property
    def area(self) -> int:
        """Number of set pixels."""
        return rle_area(self.counts, self.size)

    @classmethod
    def from_array(cls, array: npt.ArrayLike) -> Mask:
        """Make a mask from a (height, width) array; anything not zero is set."""
        bitmap = np.asarray(array)
        if bitmap.ndim != 2 or bitmap.size == 0:
            report = Report()
            report.error("$", f"has shape {bitmap.shape}, not (height, width)", "give a bitmap with two axes")
            report.settle()
        return cls(size=(bitmap.shape[0], bitmap.shape[1]), counts=rle_encode(bitmap != 0))

    @classmethod
    def from_png(cls, data: bytes, size: tuple[int, int]) -> Mask:
        """Make a mask from the bytes of a PNG file.

        Args:
            data: the file. A pixel is set if it is not black (not number 0 in a file with a palette) and at least
                half opaque.
            size: (height, width) in pixels the picture must have. Nothing is unpacked if it has another.
        """
        report = Report()
        bitmap = read_png(report, data, size)
        report.settle()
        return cls.from_array(bitmap if bitmap is not None else np.zeros(size, dtype=bool))


_FRACTIONS = "lengths are fractions of the canvas, 0..1 (divide pixels by its width or height)"


def _check_fractions(report: Report, location: object, names: tuple[str, ...]) -> None:
    """Check that attributes are numbers in 0..1, and store them as plain floats."""
    for name in names:
        number = check_number(report, f"$.{name}", getattr(location, name))
        if number is None:
            continue
        if not 0 <= number <= 1:
            report.error(f"$.{name}", f"is {show(number)}, outside 0..1", _FRACTIONS)
        object.__setattr__(location, name, number)


def _check_place(report: Report, index: int, point: object) -> tuple[float, float] | None:
    """Return one point of a stroke as a pair of fractions."""
    if type(point) is tuple and len(point) == 2 and all(type(v) is float and 0 <= v <= 1 for v in point):
        return point
    path = f"$.points[{index}]"
    pair = check_pair(report, path, _as_list(point))
    if pair is not None and not all(0 <= value <= 1 for value in pair):
        report.error(path, f"is {show(pair)}, outside 0..1", _FRACTIONS)
    return pair


def _check_counts(report: Report, counts: str, size: tuple[int, int]) -> None:
    try:
        area = rle_area(counts, size)
    except ValueError as error:
        report.error("$.counts", str(error), "encode the mask anew for this size (column by column)")
        return
    if area == 0:
        report.error("$.counts", "has no pixel set", "draw the mask, or leave it out")


def _as_list(value: object) -> object:
    return value.tolist() if isinstance(value, np.ndarray) else value
