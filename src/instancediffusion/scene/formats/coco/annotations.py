"""One COCO annotation to one instance."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from instancediffusion.errors import SceneError
from instancediffusion.geometry import fill_rings

from ...canvas import Canvas
from ...checks import check_integer, check_text, is_array
from ...limits import MAX_POLYGON_POINTS, MAX_Z_ORDER
from ...locations import Mask
from ...model import KINDS, Instance
from ...read_boxes import read_box_xywh
from ...read_places import read_point, read_rle, read_scribble
from ...report import Report, child, show


def read_annotation(
    report: Report,
    path: str,
    item: Mapping[str, Any],
    canvas: Canvas,
    names: Mapping[int, str],
    kinds: Collection[str],
) -> Instance | None:
    """Read one object; None if it is a crowd or cannot be used, which is noted."""
    if item.get("iscrowd"):
        return None
    errors = report.error_count
    caption = item.get("caption", names.get(item.get("category_id", 0)) if _is_int(item.get("category_id")) else None)
    if caption is None:
        report.fault(path, f"has the unknown category {show(item.get('category_id'))}", "name it under categories")
        return None
    caption = check_text(report, child(path, "caption"), caption, what="caption")
    wanted = set(kinds) & set(item["kinds"] if is_array(item.get("kinds")) else KINDS)
    places: dict[str, Any] = {}
    for name, key, read in (
        ("box", "bbox", read_box_xywh),
        ("point", "point", read_point),
        ("scribble", "scribble", read_scribble),
        ("mask", "segmentation", _read_segmentation),
    ):
        if name in wanted and item.get(key):
            places[name] = read(report, child(path, key), item[key], canvas)
    layer = None
    if item.get("z_order") is not None:
        layer = check_integer(report, child(path, "z_order"), item["z_order"], -MAX_Z_ORDER, MAX_Z_ORDER)
    if caption is None or report.error_count > errors:
        return None
    if not any(places.values()):
        report.fault(path, "has no location that can be used", "give it a bbox or a segmentation")
        return None
    return Instance(caption, **places, z_order=layer)


def _read_segmentation(report: Report, path: str, value: object, canvas: Canvas) -> Mask | None:
    """Read polygons [[x1, y1, x2, y2, ...], ...] or a run-length code."""
    if not is_array(value):
        return read_rle(report, path, value, canvas)
    size = (canvas.height, canvas.width)
    bitmap = np.zeros(size, dtype=bool)
    for index, ring in enumerate(value):
        where = child(path, index)
        if not is_array(ring) or not all(_is_number(v) for v in ring):
            report.error(where, "is not a list of numbers", "write [x1, y1, x2, y2, ...]")
            return None
        if len(ring) % 2 or not 6 <= len(ring) <= 2 * MAX_POLYGON_POINTS:
            report.fault(where, f"has {len(ring)} numbers", f"a polygon has 3..{MAX_POLYGON_POINTS} corners x, y")
            continue
        bitmap |= fill_rings([np.array(ring, dtype=np.float64).reshape(-1, 2)], size)
    try:
        return Mask.from_array(bitmap)
    except SceneError:
        report.fault(path, "covers no pixel of the picture", "draw it on the picture")
        return None


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
