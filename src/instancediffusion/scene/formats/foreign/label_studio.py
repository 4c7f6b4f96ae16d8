"""Label Studio: a list of tasks with results whose lengths are percent of the picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...canvas import Canvas
from ...checks import is_array
from ...model import Instance
from ...problem_report import Report, child, show
from ..scene_format import SceneFormat, register
from .entries import (
    NamedScene,
    ReadOptions,
    box_of,
    canvas_of,
    ellipse_of,
    make_instance,
    make_scene,
    placed,
    plain_number,
    plain_numbers,
    polygon_of,
    read_entries,
    scene_name,
    stroke_of,
)

_LABELS = (
    "rectanglelabels",
    "polygonlabels",
    "ellipselabels",
    "keypointlabels",
    "brushlabels",
    "vectorlabels",
    "labels",
    "hypertextlabels",
)


def read_label_studio(data: Any, report: Report, options: ReadOptions) -> list[NamedScene]:
    """Read the scenes of an export, in the full or the short (JSON-MIN) form."""
    tasks = data if is_array(data) else [data]
    found = []
    for index, task in enumerate(tasks):
        path = child("$", index) if is_array(data) else "$"
        entry = Report(lenient=True)
        scene = read_task(entry, path, task, index + 1, options)
        report.adopt(entry)
        if scene is not None:
            found.append(scene)
    return found


def _is_export(value: Any) -> bool:
    first = next((item for item in value if isinstance(item, Mapping)), None) if is_array(value) else value
    return _is_task(first)


def _is_task(task: Any) -> bool:
    if not isinstance(task, Mapping):
        return False
    results = next((task[key] for key in ("annotations", "completions", "predictions") if is_array(task.get(key))), ())
    full = isinstance(task.get("data"), Mapping) and any(
        isinstance(item, Mapping) and "result" in item for item in results
    )
    return full or any(map(_is_short, _lists(task)))


def _lists(task: Mapping[str, Any]) -> list[Any]:
    return [item for value in task.values() if is_array(value) for item in value[:3]]


def _is_short(item: Any) -> bool:
    return isinstance(item, Mapping) and "original_width" in item and any(key in item for key in _LABELS)


def read_task(report: Report, path: str, task: Any, number: int, options: ReadOptions) -> NamedScene | None:
    """Read one task; None if it cannot be used, which is noted."""
    if not _is_task(task):
        report.fault(path, "is no labelled picture", "label it, or leave it out")
        return None
    results, size = _results(report, path, task)
    width, height = size
    canvas = canvas_of(report, path, width, height, options)
    if canvas is None:
        return None
    instances = read_entries(report, results, lambda entry, where, item: _read_result(entry, where, item, canvas))
    content = task["data"] if isinstance(task.get("data"), Mapping) else task
    texts = {key: value for key, value in content.items() if isinstance(value, str)}
    picture = next((texts[key] for key in ("image", "img", "picture", "url") if key in texts), "")
    picture = picture or next((text for text in texts.values() if "/" in text or "." in text), "")
    scene = make_scene(report, texts.get("prompt", texts.get("caption")), instances, canvas)
    if scene is None:
        return None
    identity = task.get("id")
    image_id = identity if isinstance(identity, int | str) and not isinstance(identity, bool) else number
    return NamedScene(scene_name(picture) if picture else f"{image_id}", scene, image_id, picture)


def _results(report: Report, path: str, task: Mapping[str, Any]) -> tuple[list[tuple[str, Any]], tuple[Any, Any]]:
    """Results of the first annotation that was not cancelled, each with its labels and location in one mapping."""
    found: list[tuple[str, Any]] = []
    for key in ("annotations", "completions", "predictions"):
        usable = [
            (index, item)
            for index, item in enumerate(task.get(key) or ())
            if isinstance(item, Mapping) and not item.get("was_cancelled") and is_array(item.get("result"))
        ]
        if not usable:
            continue
        if len(usable) > 1:
            report.warn(child(path, key), f"holds {len(usable)} annotations of one picture; the first is read")
        where = child(child(child(path, key), usable[0][0]), "result")
        for index, item in enumerate(usable[0][1]["result"]):
            if isinstance(item, Mapping) and isinstance(item.get("value"), Mapping):
                found.append((child(where, index), {**item, **item["value"]}))
        break
    else:
        for key, value in task.items():
            if is_array(value) and any(map(_is_short, value)):
                found += [(child(child(path, key), index), item) for index, item in enumerate(value)]
    # A result that only ties two others together, or a choice for the whole picture, has no location.
    found = [(where, item) for where, item in found if any(key in item for key in ("x", "points", "vertices", "rle"))]
    sized: Mapping[str, Any] = next((item for _, item in found if "original_width" in item), {})
    return found, (sized.get("original_width"), sized.get("original_height"))


def _read_result(report: Report, path: str, item: Mapping[str, Any], canvas: Canvas) -> Instance | None:
    label = next((item[key] for key in _LABELS if item.get(key)), None)
    caption = ", ".join(map(str, label)) if is_array(label) else label
    if "rle" in item:
        report.fault(path, "is a brush mask, which is packed in a form of its own", "export as COCO, which has masks")
        return None
    location = _location(report, path, item, canvas)
    return make_instance(report, path, caption, **placed(location))


def _location(report: Report, path: str, item: Mapping[str, Any], canvas: Canvas) -> Any:
    scale = (canvas.width / 100, canvas.height / 100)
    corners = item.get("points", item.get("vertices"))
    if is_array(corners):
        points = [_point(corner) for corner in corners]
        if not points or any(point is None for point in points):
            report.fault(child(path, "points"), f"is {show(corners)}", "write [[x, y], ...]")
            return None
        scaled = [(point[0] * scale[0], point[1] * scale[1]) for point in points if point is not None]
        closed = item.get("closed", "vertices" not in item)
        return (polygon_of if closed else stroke_of)(report, path, scaled, canvas)
    numbers = [plain_number(item.get(key)) for key in ("x", "y")]
    if None in numbers:
        report.fault(path, "has no location that can be read", "give it x and y in percent")
        return None
    x, y = (value * side for value, side in zip((n or 0.0 for n in numbers), scale, strict=True))
    turn = plain_number(item.get("rotation")) or 0.0
    radii = plain_numbers([item.get("radiusX"), item.get("radiusY")])
    if radii is not None:
        return ellipse_of(report, path, (x, y), (radii[0] * scale[0], radii[1] * scale[1]), canvas, turn)
    sides = plain_numbers([item.get("width"), item.get("height")])
    if item.get("keypointlabels") or sides is None:
        return stroke_of(report, path, [(x, y)], canvas)
    width, height = sides[0] * scale[0], sides[1] * scale[1]
    if not turn:
        return box_of(report, path, [x, y, x + width, y + height], canvas)
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))  # about the upper left corner
    rectangle = [(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)]
    return polygon_of(report, path, [(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in rectangle], canvas)


def _point(value: Any) -> Sequence[float] | None:
    if isinstance(value, Mapping):
        value = [value.get("x"), value.get("y")]
    return plain_numbers(value, 2)


LABEL_STUDIO = register(
    SceneFormat("label-studio", "a Label Studio export", recognise=_is_export, read=read_label_studio)
)
