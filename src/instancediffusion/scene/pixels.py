"""Locations as files write them, in pixels, to locations as fractions of the canvas, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from instancediffusion.errors import SceneError
from instancediffusion.geometry import compress_runs, rle_runs

from .checks import check_integer, check_keys, check_numbers, check_object, check_pair, is_array
from .limits import MAX_SCRIBBLE_POINTS, MAX_SIDE_PX, MIN_SIDE_PX
from .locations import Box, Mask, Point, Scribble
from .report import Report, child, kind


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
        meant = _text([x, y, width - x, height - y])
        hint = f"it looks like [x0, y0, x1, y1]: as [x, y, width, height] that is {meant}"
    return _cut(report, path, [x, y, x + width, y + height], canvas, hint)


def looks_like_corners(box: list[float], canvas: Canvas) -> bool:
    """Whether [x, y, width, height] also reads as two corners on the canvas."""
    x, y, right, bottom = box
    return 0 <= x < right <= canvas.width and 0 <= y < bottom <= canvas.height


def read_point(report: Report, path: str, value: object, canvas: Canvas | None) -> Point | None:
    """Read [x, y] in pixels; it has to lie on the canvas."""
    pair = check_pair(report, path, value)
    if pair is None or canvas is None:
        return None
    if not (0 <= pair[0] <= canvas.width and 0 <= pair[1] <= canvas.height):
        report.fault(path, f"{_text(pair)} lies outside the {canvas} canvas", "lengths are pixels of width and height")
        return None
    return Point(pair[0] / canvas.width, pair[1] / canvas.height)


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
    moved = [(_clamp(x, canvas.width), _clamp(y, canvas.height)) for x, y in points]
    outside = sum(old != new for old, new in zip(points, moved, strict=True))
    if outside == len(points):
        report.fault(path, f"lies outside the {canvas} canvas with every point", "draw it on the canvas")
        return None
    if outside:
        message = f"has {outside} of {len(points)} points outside the {canvas} canvas; they were moved to its edge"
        report.warn(path, message, "draw it on the canvas")
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


def read_rle(report: Report, path: str, value: object, canvas: Canvas | None) -> Mask | None:
    """Read {"size": [height, width], "counts": string or run lengths}; it has to fill the canvas exactly."""
    data = check_object(report, path, value)
    if data is None:
        return None
    check_keys(report, path, data, ("size", "counts"), ("counts",) if report.lenient else ("size", "counts"))
    counts = data.get("counts")
    if "counts" in data and not isinstance(counts, str) and not is_array(counts):
        fix = "write the compressed string, or an array of run lengths"
        report.error(child(path, "counts"), f"is {kind(counts)}, not a string", fix)
        return None
    if canvas is None or "counts" not in data:
        return None
    size = (canvas.height, canvas.width)
    if "size" in data:
        if not _size_agrees(report, child(path, "size"), data["size"], canvas):
            return None
    elif report.lenient:
        report.warn(child(path, "size"), f"is missing; taken to be [{size[0]}, {size[1]}]")
    else:
        return None
    try:
        return Mask(size, counts if isinstance(counts, str) else compress_runs(rle_runs(counts, size)))  # type: ignore[arg-type]
    except SceneError as error:
        report.absorb(error, path)
    except ValueError as error:
        report.fault(child(path, "counts"), str(error), "encode the mask anew (column by column)")
    return None


def _size_agrees(report: Report, path: str, value: object, canvas: Canvas) -> bool:
    """Whether a mask's [height, width] is that of the canvas; else say how it differs."""
    sides = check_numbers(report, path, value, 2, "[height, width]")
    if sides is None:
        return False
    if sides == [canvas.height, canvas.width]:
        return True
    swapped = sides == [canvas.width, canvas.height]
    message = f"is {_text(sides)}, but the canvas is [height, width] = [{canvas.height}, {canvas.width}]"
    report.fault(path, message, "exchange the two: height comes first" if swapped else "draw the mask on the canvas")
    return False


def to_pixels(fraction: float, side: int) -> float:
    """Return the shortest pixel value that reads back as this fraction of a side; an int where that will do."""
    exact = fraction * side
    for digits in range(13):
        short = round(exact, digits)
        if short / side == fraction:
            return int(short) if digits == 0 else short
    neighbours = (exact, math.nextafter(exact, math.inf), math.nextafter(exact, -math.inf))
    return next((value for value in neighbours if value / side == fraction), exact)


def box_to_pixels(box: Box, canvas: Canvas) -> list[float]:
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


def _cut(report: Report, path: str, corners: list[float], canvas: Canvas, hint: str = "") -> Box | None:
    """Cut a box that has an area off at the canvas."""
    x0, y0, x1, y1 = corners
    sides = (canvas.width, canvas.height) * 2
    clipped = [_clamp(value, side) for value, side in zip(corners, sides, strict=True)]
    units = [value / side for value, side in zip(clipped, sides, strict=True)]
    if x1 <= 0 or y1 <= 0 or x0 >= canvas.width or y0 >= canvas.height:
        fix = hint or f"lengths are pixels; the canvas is {canvas.box}"
        report.fault(path, f"{_text(corners)} lies outside the {canvas} canvas", fix)
        return None
    if not (units[0] < units[2] and units[1] < units[3]):
        report.fault(path, f"{_text(corners)} has no area on the canvas", "make it larger")
        return None
    if clipped != corners:
        message = f"{_text(corners)} reaches outside the {canvas} canvas and was cut to {_text(clipped)}"
        report.warn(path, message, hint or "keep it on the canvas")
    elif max(corners) <= 1:
        message = f"{_text(corners)} lies within one pixel"
        report.warn(path, message, "lengths are pixels: multiply fractions by width and height")
    return Box(*units)


def _no_area(corners: list[float], canvas: Canvas | None) -> tuple[str, str]:
    """Say what is wrong with a box whose second corner is not beyond its first, and what was perhaps meant."""
    x0, y0, x1, y1 = corners
    known = canvas or Canvas(MAX_SIDE_PX, MAX_SIDE_PX)
    turned = x0 != x1 and y0 != y1
    message = f"{_text(corners)} " + ("has its second corner before the first" if turned else "has no area")
    if x1 > 0 and y1 > 0 and 0 <= x0 and x0 + x1 <= known.width and 0 <= y0 and y0 + y1 <= known.height:
        meant = _text([x0, y0, x0 + x1, y0 + y1])
        return f"{message}: it looks like [x, y, width, height]", f"boxes are two corners, write {meant}"
    if turned:
        return message, f"write {_text([min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)])}"
    return message, "give it two different corners, or use a point"


def _clamp(value: float, side: int) -> float:
    return min(max(value, 0.0), float(side))


def number_text(value: float) -> str:
    """Return a number as a message writes it, whole ones without a point."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else f"{value:.6g}"


def _text(values: list[float] | tuple[float, ...]) -> str:
    return "[" + ", ".join(number_text(value) for value in values) + "]"
