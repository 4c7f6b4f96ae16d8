"""Lists of boxes as language models and layout tools write them: `box_2d`, `bbox_2d`, fractions, named corners.

What the four numbers mean differs from tool to tool, and a wrong guess turns every object about. So they are read
where the file says it, by a key that only one convention uses or by the names of the numbers, or where the reader is
given them (`ReadOptions.units`, `ReadOptions.boxes`). Else the file is refused with the question.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...canvas import Canvas
from ...checks import is_array
from ...limits import MAX_SIDE_PX, MAX_Z_ORDER, MIN_SIDE_PX
from ...locations import read_point, read_scribble
from ...model import Instance
from ...problem_report import Report, child, show
from ..scene_files import is_scene_list
from ..scene_format import SceneFormat, register
from .entries import (
    NamedScene,
    ReadOptions,
    box_of,
    default_canvas,
    make_instance,
    make_scene,
    plain_number,
    plain_numbers,
    read_entries,
    scene_name,
    whole_number,
)

_LISTS = (
    "instances", "objects", "object_list", "elements", "regions", "detections", "annotations", "annos", "boxes",
    "bboxes", "bounding_boxes", "layout", "items", "entities", "results", "predictions",
)  # fmt: skip
_LABELS = (
    "caption", "label", "desc", "description", "name", "phrase", "text", "object", "class", "category", "class_name",
    "prompt", "category_name",
)  # fmt: skip
_BOXES = ("box_2d", "bbox_2d", "box2d", "bbox2d", "bbox", "box", "bounding_box", "boundingBox", "coordinates", "rect")
_WORDS = ("phrases", "gligen_phrases", "labels", "captions", "names", "objects", "classes", "categories")
_BOX_LISTS = ("gligen_boxes", "locations", "boxes", "bboxes", "bounding_boxes", "bbox")
_FOREIGN = ("box_2d", "bbox_2d", "box2d", "bbox2d", "bounding_box", "boundingBox")
_LAYERS = ("z_order", "z_index", "zIndex", "z", "layer")
_PROMPTS = ("prompt", "caption", "high_level_description", "text", "description", "title")
# Names of four numbers in an object -> what they are, in the order in which they are taken.
_NAMED: tuple[tuple[tuple[str, ...], str], ...] = (
    (("x0", "y0", "x1", "y1"), "xyxy"),
    (("x1", "y1", "x2", "y2"), "xyxy"),
    (("xmin", "ymin", "xmax", "ymax"), "xyxy"),
    (("x_min", "y_min", "x_max", "y_max"), "xyxy"),
    (("left", "top", "right", "bottom"), "xyxy"),
    (("x", "y", "width", "height"), "xywh"),
    (("x", "y", "w", "h"), "xywh"),
    (("left", "top", "width", "height"), "xywh"),
    (("cx", "cy", "w", "h"), "cxcywh"),
    (("cx", "cy", "width", "height"), "cxcywh"),
)
_SCALES = {"fractions": 1.0, "percent": 100.0, "thousandths": 1000.0}


@dataclass(frozen=True)
class _Convention:
    """How the numbers of a file are read: order of a box, and what the canvas's side is in them (None: pixels)."""

    order: str
    units: str

    def pixels(self, values: list[float], canvas: Canvas) -> list[float]:
        """Two corners of a box, in pixels."""
        a, b, c, d = values
        if self.order == "xywh":
            corners = [a, b, a + c, b + d]
        elif self.order == "yxyx":
            corners = [b, a, d, c]
        elif self.order == "cxcywh":
            corners = [a - c / 2, b - d / 2, a + c / 2, b + d / 2]
        else:
            corners = [a, b, c, d]
        return [value * scale for value, scale in zip(corners, self._scale(canvas) * 2, strict=True)]

    def position(self, values: list[float], canvas: Canvas) -> list[float]:
        """A point, in pixels."""
        x, y = values[::-1] if self.order == "yxyx" else values
        scale = self._scale(canvas)
        return [x * scale[0], y * scale[1]]

    def _scale(self, canvas: Canvas) -> tuple[float, float]:
        if self.units == "pixels":
            return (1.0, 1.0)
        return (canvas.width / _SCALES[self.units], canvas.height / _SCALES[self.units])


def _is_plan(data: Any) -> bool:
    """Whether JSON data is a list of labelled boxes in a way that is not the native one."""
    if is_scene_list(data):
        return False
    if isinstance(data, Mapping) and isinstance(data.get("compositional_deconstruction"), Mapping):
        return True
    if isinstance(data, Mapping) and _paired(data) is not None:
        return True
    items = [item for _, item in _entries(data) if isinstance(item, Mapping)]
    if any(key in item for item in items for key in _FOREIGN):
        return True
    if is_array(data) and items:
        return all(_label(item) is not None and _box(item) is not None for item in items)
    if isinstance(data, Mapping) and "instances" not in data and "annos" not in data:
        pairs = [item for _, item in _entries(data)]
        return bool(pairs) and all(_box(item) is not None and _label(item) is not None for item in pairs)
    return False


def read_plan(data: Any, report: Report, options: ReadOptions) -> list[NamedScene]:
    """Read the one scene of a list of boxes."""
    entries = _entries(data)
    top: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
    stated = _stated_canvas(top)
    convention = _convention(report, top, entries, options, stated is not None)
    if convention is None:
        return []
    canvas = stated
    if canvas is None or options.canvas is not None:
        if convention.units == "pixels" and options.canvas is None:
            report.error("$", "has boxes in pixels of a picture whose size it does not state",
                         "give it with --canvas WIDTHxHEIGHT")  # fmt: skip
            return []
        canvas = default_canvas(report, options)
    instances = read_entries(
        report, entries, lambda entry, path, item: _read_item(entry, path, item, convention, canvas)
    )
    prompt = next((top[key] for key in _PROMPTS if isinstance(top.get(key), str) and top[key].strip()), None)
    scene = make_scene(report, prompt, instances, canvas, top.get("negative_prompt"))
    stem = re.sub(r"\.(json|txt)\Z", "", options.name)
    return [] if scene is None else [NamedScene(scene_name(stem), scene)]


def _entries(data: Any) -> list[tuple[str, Any]]:
    """Path and content of each object of a list, wherever the list stands."""
    path, found = "$", data
    if isinstance(data, Mapping):
        if (paired := _paired(data)) is not None:
            return paired
        inner = data.get("compositional_deconstruction")
        if isinstance(inner, Mapping):
            path, data = "$.compositional_deconstruction", inner
        key = next((key for key in _LISTS if is_array(data.get(key)) or isinstance(data.get(key), Mapping)), None)
        if key is None:
            return []
        path, found = child(path, key), data[key]
    if isinstance(found, Mapping):  # {"a dog": box} or {"a dog": [box, box]}
        pairs = []
        for label, value in found.items():
            boxes = value if is_array(value) and value and all(is_array(box) for box in value) else [value]
            pairs += [(child(path, label), [label, box]) for box in boxes]
        return pairs
    return [(child(path, index), item) for index, item in enumerate(found)] if is_array(found) else []


def _paired(data: Mapping[str, Any]) -> list[tuple[str, Any]] | None:
    """Objects given as two lists of one length, words and boxes, as grounded pipelines take them."""
    for words in _WORDS:
        if not is_array(data.get(words)) or not data[words] or not all(isinstance(word, str) for word in data[words]):
            continue
        for boxes in _BOX_LISTS:
            value = data.get(boxes)
            if is_array(value) and len(value) == len(data[words]) and all(plain_numbers(box, 4) for box in value):
                pairs = zip(data[words], value, strict=True)
                return [(child(child("$", boxes), index), [word, box]) for index, (word, box) in enumerate(pairs)]
    return None


def _label(item: Any) -> str | None:
    if isinstance(item, Mapping):
        return next((item[key] for key in _LABELS if isinstance(item.get(key), str) and item[key].strip()), None)
    return next((part for part in item if isinstance(part, str)), None) if is_array(item) and len(item) == 2 else None


def _box(item: Any) -> tuple[str, list[float], str | None] | None:
    """The key of an item's box, its four numbers, and their order if names state it."""
    if is_array(item) and len(item) == 2:
        item = {"box": next((part for part in item if not isinstance(part, str)), None)}
    if not isinstance(item, Mapping):
        return None
    for key in _BOXES:
        value = item.get(key)
        numbers = plain_numbers(value, 4)
        if numbers is not None:
            return key, numbers, None
        if isinstance(value, Mapping) and (named := _named(value)) is not None:
            return key, *named
    named = _named(item)
    return None if named is None else ("", *named)


def _named(item: Mapping[str, Any]) -> tuple[list[float], str] | None:
    for names, order in _NAMED:
        numbers = plain_numbers([item.get(name) for name in names], 4)
        if numbers is not None:
            return numbers, order
    return None


def _point(item: Any) -> list[float] | None:
    if not isinstance(item, Mapping):
        return None
    return next((found for key in ("point", "point_2d") if (found := plain_numbers(item.get(key), 2))), None)


def _stated_canvas(top: Mapping[str, Any]) -> Canvas | None:
    for names in (("width", "height"), ("image_width", "image_height"), ("imageWidth", "imageHeight")):
        width, height = (whole_number(top.get(name)) for name in names)
        if width and height and all(MIN_SIDE_PX <= side <= MAX_SIDE_PX for side in (width, height)):
            return Canvas(width, height)
    return None


def _convention(
    report: Report, top: Mapping[str, Any], entries: list[tuple[str, Any]], options: ReadOptions, sized: bool
) -> _Convention | None:
    boxes = [box for _, item in entries if (box := _box(item)) is not None]
    keys = {key for key, _, _ in boxes}
    numbers = [value for _, values, _ in boxes for value in values]
    numbers += [value for _, item in entries for value in _point(item) or ()]
    if not numbers:
        report.error("$", "has no box of four numbers", "give each object a label and a box")
        return None
    order, units = options.boxes, options.units
    thousandths = keys <= {"box_2d", "box2d"} or "compositional_deconstruction" in top
    named = {order for _, _, order in boxes}
    if len(named) == 1 and None not in named:
        order = order or named.pop()
    if order is None and thousandths:
        order = "yxyx"
    if units is None and thousandths and max(numbers) <= 1000:
        units = "thousandths"
    if order is None and (keys <= {"bbox_2d", "bbox2d"} or "gligen_boxes" in top):
        order = "xyxy"
    fractions = 0 <= min(numbers) and max(numbers) <= 1
    if units is None and not thousandths and (fractions or max(numbers) > 1000 or (sized and not keys & {"bbox_2d"})):
        units = "fractions" if fractions else "pixels"
    if order is None or units is None:
        example = boxes[0][1] if boxes else numbers[:2]
        missing = [] if order is not None else ["the order of their numbers with --boxes xyxy, xywh, yxyx or cxcywh"]
        missing += [] if units is not None else ["their unit with --units pixels, thousandths, percent or fractions"]
        report.error(
            "$",
            f"is a list of boxes such as {show(example)}{_of(keys)}, and tools differ in what such numbers mean",
            "say " + " and ".join(missing),
        )
        return None
    if thousandths and options.boxes is None and options.units is None:
        report.warn("$", "box_2d is read as [y0, x0, y1, x1] in thousandths of the picture" if keys & {"box_2d"} else
                    "boxes are read as [y0, x0, y1, x1] in thousandths of the picture",
                    "say otherwise with --boxes and --units")  # fmt: skip
    return _Convention(order, units)


def _of(keys: set[str]) -> str:
    named = sorted(key for key in keys if key)
    return f" ({', '.join(named)})" if named else ""


def _read_item(report: Report, path: str, item: Any, convention: _Convention, canvas: Canvas) -> Instance | None:
    caption, box, point = _label(item), _box(item), _point(item)
    locations: dict[str, Any] = {}
    if box is not None:
        locations["box"] = box_of(report, path, convention.pixels(box[1], canvas), canvas)
    if point is not None:
        locations["point"] = read_point(report, child(path, "point"), convention.position(point, canvas), canvas)
    if isinstance(item, Mapping):
        stroke = item.get("scribble")
        points = [plain_numbers(pair, 2) for pair in stroke] if is_array(stroke) else []
        if points and all(pair is not None for pair in points):
            scaled = [convention.position(pair, canvas) for pair in points if pair is not None]
            locations["scribble"] = read_scribble(report, child(path, "scribble"), scaled, canvas)
        if item.get("mask") is not None:
            report.warn(child(path, "mask"), "is not read: masks of such lists have forms of their own")
        layer = next((whole_number(item[key]) for key in _LAYERS if plain_number(item.get(key)) is not None), None)
        if layer is not None and abs(layer) <= MAX_Z_ORDER:
            locations["z_order"] = layer
    return make_instance(report, path, caption, **locations)


BOXES = register(SceneFormat("boxes", "a list of boxes", recognise=_is_plan, read=read_plan))
