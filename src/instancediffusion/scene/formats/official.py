"""The published demo format: lengths in pixels, boxes as [x, y, width, height].

Two spellings are read: the published one (`annos`, `bbox`) and a tidied one (`instances`, `box`). Files of this kind
have known faults (boxes of no size, boxes and strokes off the canvas, objects without a location), so what cannot be
used is left out with a warning, instead of refusing the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..canvas import Canvas, box_to_pixels, extent_to_pixels, point_to_pixels, read_canvas
from ..checks import check_integer, check_keys, check_object, check_text, is_array
from ..limits import MAX_INSTANCES, MAX_Z_ORDER
from ..locations import looks_like_corners, read_box_xywh, read_point, read_rle, read_scribble
from ..model import Instance, Scene
from ..problem_report import Report, child, kind
from .looks import LOOKS, read_looks, write_looks

# Keys that say nothing about the scene: where a file comes from and how it was run.
_NOTES = ("name", "study", "source_file", "comment", "run", "units")
_SCENE_KEYS = ("caption", "width", "height", "annos", "instances", "negative_prompt", *_NOTES)
_ANNO_NOTES = ("category_name", "category", "note", "mask_bbox_xywh", "mask_area")
_ANNO_KEYS = ("caption", "bbox", "box", "point", "scribble", "mask", "z_order", *LOOKS, *_ANNO_NOTES)


def read_official(data: object, report: Report) -> Scene | None:
    """Read a scene from JSON data in the published format.

    Args:
        data: what `json.load` gives.
        report: takes every problem; make it lenient, or the faults of the published files are errors.

    Returns:
        The scene, or None if the report holds an error.
    """
    top = check_object(report, "$", data)
    if top is None:
        return None
    items = "instances" if "instances" in top and "annos" not in top else "annos"
    check_keys(report, "$", top, _SCENE_KEYS, ("caption", "width", "height", items))
    prompt = check_text(report, "$.caption", top["caption"], what="caption") if "caption" in top else None
    negative = None
    if "negative_prompt" in top:
        what = "negative prompt"
        negative = check_text(report, "$.negative_prompt", top["negative_prompt"], what=what, blank=True)
    canvas = read_canvas(report, top)
    annos = top.get(items, [])
    path = child("$", items)
    if not is_array(annos):
        report.error(path, f"is {kind(annos)}, not an array", "write a list of objects")
        return None
    if len(annos) > MAX_INSTANCES:
        message = f"has {len(annos)} items; only the first {MAX_INSTANCES} were checked"
        report.error(path, message, f"use at most {MAX_INSTANCES}")
    annos = annos[:MAX_INSTANCES]
    found = [_read_anno(report, child(path, index), item, canvas) for index, item in enumerate(annos)]
    if canvas is not None and _all_corners(annos, canvas):
        message = "has boxes that all read as [x0, y0, x1, y1], and most of which leave the canvas as "
        report.error(path, message + "[x, y, width, height]", "this format wants [x, y, width, height]")
    if report.failed or prompt is None or canvas is None:
        return None
    return Scene(prompt, tuple(i for i in found if i is not None), canvas.width, canvas.height, negative)


def write_official(scene: Scene) -> dict[str, Any]:
    """Return a scene in the published spelling; `read_official` gives the same scene back.

    `z_order`, `negative_prompt`, `negative` and `reference`, which the published code does not know, are written
    where they are stated; it skips keys it does not know.
    """
    canvas = Canvas(scene.width, scene.height)
    data: dict[str, Any] = {"caption": scene.prompt, "width": scene.width, "height": scene.height}
    if scene.negative_prompt is not None:
        data["negative_prompt"] = scene.negative_prompt
    return data | {"annos": [_write_anno(instance, canvas) for instance in scene.instances]}


def _read_anno(report: Report, path: str, value: object, canvas: Canvas | None) -> Instance | None:
    data, errors = check_object(report, path, value), report.error_count
    if data is None:
        return None
    check_keys(report, path, data, _ANNO_KEYS, ("caption",))
    caption = check_text(report, child(path, "caption"), data["caption"], what="caption") if "caption" in data else None
    box_key = "box" if "box" in data and "bbox" not in data else "bbox"
    locations: dict[str, Any] = {}
    if not _absent(data, box_key):
        locations["box"] = read_box_xywh(report, child(path, box_key), data[box_key], canvas)
    if not _absent(data, "point"):
        locations["point"] = read_point(report, child(path, "point"), data["point"], canvas)
    if not _absent(data, "scribble"):
        stroke = _nested(report, child(path, "scribble"), data["scribble"])
        if stroke is not None:
            locations["scribble"] = read_scribble(report, child(path, "scribble"), stroke, canvas)
    if not _absent(data, "mask"):
        locations["mask"] = read_rle(report, child(path, "mask"), data["mask"], canvas)
    layer = None
    if "z_order" in data:
        layer = check_integer(report, child(path, "z_order"), data["z_order"], -MAX_Z_ORDER, MAX_Z_ORDER)
    looks = read_looks(report, path, data)
    if canvas is not None and not any(locations.values()) and report.error_count == errors:
        report.fault(path, "has no location that can be used", "give it a bbox, point, scribble or mask")
        return None
    if report.failed or caption is None:
        return None
    return Instance(caption, **locations, z_order=layer, **looks)


def _absent(data: Mapping[str, object], key: str) -> bool:
    """Whether a location is not given; the published files also write an empty list for that."""
    value = data.get(key)
    return value is None or (is_array(value) and len(value) == 0)


def _nested(report: Report, path: str, value: object) -> object:
    """Turn the flat spelling [x1, y1, x2, y2, ...] into points."""
    if not is_array(value) or any(is_array(item) for item in value):
        return value
    if len(value) % 2:
        report.fault(path, f"has {len(value)} numbers, which are no pairs", "write [x1, y1, x2, y2, ...]")
        return None
    return [[value[index], value[index + 1]] for index in range(0, len(value), 2)]


def _all_corners(annos: Any, canvas: Canvas) -> bool:
    """Whether the boxes of a file were evidently written as two corners: all can be, and most have to be."""
    boxes = [anno.get("bbox", anno.get("box")) for anno in annos if isinstance(anno, Mapping)]
    clean = [
        [float(value) for value in box]
        for box in boxes
        if is_array(box) and len(box) == 4 and all(type(value) in (int, float) and abs(value) < 1e9 for value in box)
    ]
    outside = sum(x + width > canvas.width or y + height > canvas.height for x, y, width, height in clean)
    return len(clean) >= 2 and 2 * outside > len(clean) and all(looks_like_corners(box, canvas) for box in clean)


def _write_anno(instance: Instance, canvas: Canvas) -> dict[str, Any]:
    data: dict[str, Any] = {"caption": instance.caption}
    if instance.box is not None:
        data["bbox"] = extent_to_pixels(box_to_pixels(instance.box, canvas))
    if instance.point is not None:
        data["point"] = point_to_pixels(instance.point.x, instance.point.y, canvas)
    if instance.scribble is not None:
        points = [point_to_pixels(x, y, canvas) for x, y in instance.scribble.points]
        data["scribble"] = [value for point in points for value in point]
    data["mask"] = []
    if instance.mask is not None:
        data["mask"] = {"size": list(instance.mask.size), "counts": instance.mask.counts}
    if instance.z_order is not None:
        data["z_order"] = instance.z_order
    return data | write_looks(instance)
