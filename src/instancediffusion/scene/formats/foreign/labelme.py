"""LabelMe: one JSON file for each picture, `shapes` with a label and points in pixels."""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ...canvas import Canvas
from ...checks import is_array
from ...locations import Mask
from ...model import Instance
from ...problem_report import Report, child, show
from ..scene_format import SceneFormat, register
from .entries import (
    NamedScene,
    ReadOptions,
    box_of,
    canvas_of,
    ellipse_of,
    items_of,
    make_instance,
    make_scene,
    placed,
    plain_numbers,
    polygon_of,
    read_entries,
    scene_name,
    stroke_of,
)


def _is_labelme(value: Any) -> bool:
    return isinstance(value, Mapping) and "shapes" in value and ("imagePath" in value or "imageHeight" in value)


def read_labelme(data: Any, report: Report, options: ReadOptions) -> list[NamedScene]:
    """Read the one scene of a file. Shapes of one label and one group are one object, if all are areas."""
    if not isinstance(data, Mapping):
        report.error("$", f"is {show(data)[:60]}, not a LabelMe file", "leave --from out, or give another file")
        return []
    picture = data.get("imagePath")
    picture = picture if isinstance(picture, str) else ""
    canvas = canvas_of(report, "$", data.get("imageWidth"), data.get("imageHeight"), options, picture)
    if canvas is None:
        return []
    groups: dict[int, Any] = {}

    def read(entry: Report, path: str, shape: Any) -> Instance | None:
        instance = _read_shape(entry, path, shape, canvas)
        if instance is not None:
            groups[id(instance)] = shape.get("group_id")
        return instance

    shapes = read_entries(report, items_of(report, "$.shapes", data.get("shapes")), read)
    instances = _joined(shapes, groups)
    scene = make_scene(report, data.get("prompt"), instances, canvas)
    return [] if scene is None else [NamedScene(scene_name(picture or options.name), scene, 1, picture)]


def _read_shape(report: Report, path: str, shape: Any, canvas: Canvas) -> Instance | None:
    if not isinstance(shape, Mapping):
        report.fault(path, f"is {show(shape)}, not an object", "write {...}")
        return None
    kind = shape.get("shape_type") or "polygon"  # files before version 3 have polygons alone
    given = shape.get("points")
    points = [plain_numbers(point, 2) for point in given] if is_array(given) else [None]
    if any(point is None for point in points) or not points:
        report.fault(child(path, "points"), f"is {show(given)}", "write [[x, y], ...]")
        return None
    location = _location(report, path, kind, [point for point in points if point is not None], shape, canvas)
    return make_instance(report, path, shape.get("label"), **placed(location))


def _location(
    report: Report, path: str, kind: object, points: list[list[float]], shape: Mapping[str, Any], canvas: Canvas
) -> Any:
    where = child(path, "points")
    if kind == "rectangle" and len(points) in (2, 4):
        columns, rows = zip(*points, strict=True)
        return box_of(report, where, [min(columns), min(rows), max(columns), max(rows)], canvas)
    if kind in ("polygon", "oriented_rectangle"):
        return polygon_of(report, where, points, canvas)
    if kind == "circle" and len(points) == 2:
        radius = math.dist(points[0], points[1])
        return ellipse_of(report, where, (points[0][0], points[0][1]), (radius, radius), canvas)
    if kind in ("line", "linestrip", "points", "point"):
        return stroke_of(report, where, points, canvas)
    if kind == "mask" and len(points) == 2:
        return _read_mask(report, child(path, "mask"), shape.get("mask"), points, canvas)
    report.fault(path, f"is a {show(kind)} of {len(points)} points", "draw a polygon or a rectangle")
    return None


def _read_mask(report: Report, path: str, value: object, corners: list[list[float]], canvas: Canvas) -> Mask | None:
    """Read a mask: a PNG in base64 that fills the box between two corners."""
    from PIL import Image

    left, top = (round(min(corners[0][axis], corners[1][axis])) for axis in (0, 1))
    try:
        png = base64.b64decode(value if isinstance(value, str) else "", validate=True)
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            if image.width > canvas.width + 1 or image.height > canvas.height + 1:
                raise ValueError("it is larger than the picture")
            part = np.asarray(image.convert("L")) > 0
    except (binascii.Error, ValueError, OSError, SyntaxError) as error:
        report.fault(path, f"is no PNG in base64 that can be read ({str(error)[:60]})", "save the mask anew")
        return None
    bitmap = np.zeros((canvas.height, canvas.width), dtype=bool)
    y, x = np.nonzero(part)
    inside = (y + top >= 0) & (y + top < canvas.height) & (x + left >= 0) & (x + left < canvas.width)
    if not inside.any():
        report.fault(path, "covers no pixel of the picture", "draw it on the picture")
        return None
    bitmap[y[inside] + top, x[inside] + left] = True
    return Mask.from_array(bitmap)


def _joined(instances: list[Instance], groups: Mapping[int, Any]) -> list[Instance]:
    """Join areas of one label and group into one object: the parts of a thing that something stands before."""
    found: dict[Any, Instance] = {}
    for number, instance in enumerate(instances):
        group = groups.get(id(instance))
        key = (instance.caption, str(group)) if group is not None and instance.kinds == ("mask",) else number
        before = found.get(key)
        if before is None or before.mask is None or instance.mask is None:
            found[key] = instance
        else:
            found[key] = replace(before, mask=Mask.from_array(before.mask.array | instance.mask.array))
    return list(found.values())


LABELME = register(SceneFormat("labelme", "a LabelMe file", recognise=_is_labelme, read=read_labelme))
