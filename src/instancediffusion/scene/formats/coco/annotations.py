"""One COCO annotation to one instance."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ...canvas import Canvas
from ...checks import check_integer, check_text, is_array
from ...limits import MAX_Z_ORDER
from ...locations import Mask, read_box_xywh, read_point, read_polygons, read_rle, read_scribble
from ...model import KINDS, Instance
from ...problem_report import Report, child, show
from ..foreign.entries import plain_number, plain_numbers
from ..looks import read_looks
from .coco_scene import Key, key_of


def read_annotation(
    report: Report,
    path: str,
    item: Mapping[str, Any],
    canvas: Canvas,
    names: Mapping[Key, str],
    kinds: Collection[str],
) -> Instance | None:
    """Read one object; None if it is a crowd or cannot be used, which is noted."""
    if is_crowd(item):
        return None
    caption = item.get("caption")
    if caption is None:
        category = item.get("category_id")
        key = key_of(category)
        if key is None or key not in names:
            report.fault(path, f"has the unknown category {show(category)}", "name it under categories")
            return None
        caption = names[key]
    caption = check_text(report, child(path, "caption"), caption, what="caption")
    wanted = set(kinds) & set(item["kinds"] if is_array(item.get("kinds")) else KINDS)
    locations: dict[str, Any] = {}
    for name, field, read in (
        ("box", "bbox", read_box_xywh),
        ("point", "point", read_point),
        ("scribble", "scribble", read_scribble),
        ("mask", "segmentation", read_segmentation),
    ):
        if name in wanted and item.get(field):
            # A location that cannot be used leaves the others of the object.
            part = Report(lenient=True)
            locations[name] = read(part, child(path, field), _numbers(item[field]), canvas)
            report.adopt(part)
    layer = None
    if item.get("z_order") is not None:
        layer = check_integer(report, child(path, "z_order"), item["z_order"], -MAX_Z_ORDER, MAX_Z_ORDER)
    # Files of other programs may mean something else by these keys; those written here also have `kinds`.
    looks = read_looks(report, path, item) if "kinds" in item else {}
    if caption is None or report.failed:
        return None
    if not any(locations.values()):
        report.fault(path, "has no location that can be used", "give it a bbox or a segmentation")
        return None
    return Instance(caption, **locations, z_order=layer, **looks)


def is_crowd(item: Mapping[str, Any]) -> bool:
    """Whether an annotation is of a crowd; tools write 1, 1.0, "1" or true."""
    value = item.get("iscrowd")
    return value is True or plain_number(value) == 1


def _numbers(value: Any) -> Any:
    """A list with numbers in place of numbers that are written as text; all else as it is."""
    if not is_array(value):
        return value
    return [
        number if isinstance(item, str) and (number := plain_number(item)) is not None else _numbers(item)
        for item in value
    ]


def read_segmentation(report: Report, path: str, value: Any, canvas: Canvas) -> Mask | None:
    """Read polygons in any spelling that tools use, or a run-length code."""
    if is_array(value) and len(value) == 1 and isinstance(value[0], Mapping):
        value = value[0]
    if not is_array(value):
        return read_rle(report, path, value, canvas)
    rings = _rings(value)
    if rings is None:
        report.fault(path, "is not a list of polygons", "write [[x1, y1, x2, y2, ...], ...]")
        return None
    if rings and not is_array(value[0]):
        fix = "a list of polygons is a list of lists: [[x1, y1, x2, y2, ...]]"
        report.warn(path, "lacks a pair of brackets; taken as one polygon", fix)
    return read_polygons(report, path, rings, canvas)


def _rings(value: Any) -> list[list[float]] | None:
    """Polygons as flat lists of numbers. Also understood: one flat list, and corners [x, y] in place of numbers."""
    flat = plain_numbers(value)
    if flat is not None:
        return [flat]
    if all(plain_numbers(item, 2) is not None for item in value) and len(value) >= 3:
        return [[number for item in value for number in plain_numbers(item, 2) or ()]]
    rings = []
    for item in value:
        ring = plain_numbers(item)
        if ring is None and is_array(item) and all(plain_numbers(corner, 2) is not None for corner in item):
            ring = [number for corner in item for number in plain_numbers(corner, 2) or ()]
        if ring is None:
            return None
        rings.append(ring)
    return rings
