"""Points, strokes and run-length masks as files write them, in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from instancediffusion.errors import SceneError
from instancediffusion.geometry import compress_runs, fill_rings, rle_runs

from .canvas import Canvas, clamp, on_edge
from .checks import check_keys, check_numbers, check_object, check_pair, is_array
from .limits import MAX_POLYGON_POINTS, MAX_SCRIBBLE_POINTS
from .locations import Mask, Point, Scribble
from .report import FRACTIONS, Report, child, kind, numbers_text


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


def read_polygons(report: Report, path: str, rings: Sequence[Any], canvas: Canvas) -> Mask | None:
    """Read polygons [[x1, y1, x2, y2, ...], ...] in pixels as the mask of all of them.

    Parts off the canvas are cut off. One that cannot be used is left out.
    """
    size = (canvas.height, canvas.width)
    bitmap = np.zeros(size, dtype=bool)
    usable = not rings
    for index, ring in enumerate(rings):
        where = child(path, index)
        if len(ring) % 2 or not 6 <= len(ring) <= 2 * MAX_POLYGON_POINTS:
            report.fault(where, f"has {len(ring)} numbers", f"a polygon has 3..{MAX_POLYGON_POINTS} corners x, y")
            continue
        usable = True
        bitmap |= fill_rings([np.array(ring, dtype=np.float64).reshape(-1, 2)], size)
    if not bitmap.any():
        if usable:
            report.fault(path, "covers no pixel of the picture", "draw it on the picture")
        return None
    return Mask.from_array(bitmap)


def read_runs(report: Report, path: str, runs: Sequence[int], frame: tuple[int, ...], canvas: Canvas) -> Mask | None:
    """Read run lengths, row by row and unset first, of a rectangle (left, top, width, height) in pixels."""
    left, top, width, height = frame
    fits = 0 <= left and 0 <= top and 0 < width <= canvas.width - left and 0 < height <= canvas.height - top
    if not fits or min(runs, default=0) < 0 or sum(runs) != width * height:
        report.fault(path, f"does not fill its rectangle of {width} x {height} pixels", "export the mask anew")
        return None
    part = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    if not part.any():
        report.fault(path, "has no pixel set", "draw the mask, or leave it out")
        return None
    bitmap = np.zeros((canvas.height, canvas.width), dtype=bool)
    bitmap[top : top + height, left : left + width] = part
    return Mask.from_array(bitmap)


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
    message = f"is {numbers_text(sides)}, but the canvas is [height, width] = [{canvas.height}, {canvas.width}]"
    report.fault(path, message, "exchange the two: height comes first" if swapped else "draw the mask on the canvas")
    return False
