"""The native format, version 1: lengths in pixels of `width` x `height`, boxes as two corners."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..canvas import Canvas, read_canvas
from ..checks import check_integer, check_keys, check_object, check_text, is_array
from ..limits import FORMAT_VERSION, MAX_INSTANCES, MAX_Z_ORDER
from ..locations import LOCATIONS, TokenLocation
from ..model import Instance, Notation, Scene
from ..problem_report import Report, child, kind, show
from .looks import LOOKS, read_looks, write_looks

REQUIRED_KEYS = ("version", "prompt", "width", "height", "instances")
SCENE_KEYS = (*REQUIRED_KEYS, "negative_prompt", "$schema")

_PUBLISHED = "that is the published format: load it as such, or convert the file"
_SCENE_HINTS = {"caption": 'the text of the whole picture is "prompt"', "annos": _PUBLISHED}
_INSTANCE_HINTS = {
    "bbox": 'write "box" with two corners [x0, y0, x1, y1]',
    "z": 'did you mean "z_order"?',
    "layer": 'did you mean "z_order"?',
    "negative_prompt": 'that of an instance is "negative"',
    "negative_caption": 'did you mean "negative"?',
    "image": 'did you mean "reference"?',
    "reference_image": 'did you mean "reference"?',
    "segmentation": 'did you mean "mask"?',
    "polygon": 'only bitmaps are read: write "mask"',
}


def instance_keys() -> tuple[str, ...]:
    """The keys of an instance; kinds of location that were added are among them."""
    return ("caption", *LOCATIONS, "z_order", *LOOKS)


def read_native(data: object, report: Report, folder: Path | None = None) -> Scene | None:
    """Read a scene from JSON data.

    Args:
        data: what `json.load` gives.
        report: takes every problem.
        folder: where mask and reference files named in the scene lie; without it none is read.

    Returns:
        The scene, or None if the report holds an error.
    """
    top = check_object(report, "$", data)
    if top is None:
        return None
    check_keys(report, "$", top, SCENE_KEYS, REQUIRED_KEYS, _SCENE_HINTS)
    if "version" in top:
        _check_version(report, top["version"])
    prompt = check_text(report, "$.prompt", top["prompt"], what="prompt") if "prompt" in top else None
    negative = None
    if "negative_prompt" in top:
        what = "negative prompt"
        negative = check_text(report, "$.negative_prompt", top["negative_prompt"], what=what, blank=True)
    canvas = read_canvas(report, top)
    instances = _read_instances(report, top.get("instances", []), canvas, folder)
    if report.failed or prompt is None or canvas is None:
        return None
    return Scene(prompt, tuple(instances), canvas.width, canvas.height, negative)


def write_native(scene: Scene) -> dict[str, Any]:
    """Return a scene as JSON data; `read_native` gives the same scene back."""
    canvas = Canvas(scene.width, scene.height)
    data: dict[str, Any] = {"version": FORMAT_VERSION, "prompt": scene.prompt}
    if scene.negative_prompt is not None:
        data["negative_prompt"] = scene.negative_prompt
    instances = [_write_instance(instance, canvas) for instance in scene.instances]
    return data | {"width": scene.width, "height": scene.height, "instances": instances}


def _check_version(report: Report, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != FORMAT_VERSION:
        fix = f"write {FORMAT_VERSION}"
        if isinstance(value, int) and not isinstance(value, bool) and value > FORMAT_VERSION:
            fix += ", or update this package"
        report.error("$.version", f"is {show(value)}, and only version {FORMAT_VERSION} is known", fix)


def _read_instances(report: Report, value: object, canvas: Canvas | None, folder: Path | None) -> list[Instance]:
    if not is_array(value):
        report.error("$.instances", f"is {kind(value)}, not an array", "write a list of objects")
        return []
    if len(value) > MAX_INSTANCES:
        message = f"has {len(value)} items; only the first {MAX_INSTANCES} were checked"
        report.error("$.instances", message, f"use at most {MAX_INSTANCES}")
    found = (
        _read_instance(report, child("$.instances", index), item, canvas, folder)
        for index, item in enumerate(value[:MAX_INSTANCES])
    )
    return [instance for instance in found if instance is not None]


def _read_instance(
    report: Report, path: str, value: object, canvas: Canvas | None, folder: Path | None
) -> Instance | None:
    data = check_object(report, path, value)
    if data is None:
        return None
    check_keys(report, path, data, instance_keys(), ("caption",), _INSTANCE_HINTS)
    caption = check_text(report, child(path, "caption"), data["caption"], what="caption") if "caption" in data else None
    if not any(name in data for name in LOCATIONS):
        report.error(path, "has no location", 'add a "box", "point", "scribble" or "mask"')
    locations: dict[str, Any] = {}
    others = []
    for name, location in LOCATIONS.items():
        if name not in data:
            continue
        found = location.read(report, child(path, name), data[name], canvas, folder)
        if issubclass(location, TokenLocation):
            locations[name] = found
        elif found is not None:
            others.append(found)
    layer = None
    if "z_order" in data:
        layer = check_integer(report, child(path, "z_order"), data["z_order"], -MAX_Z_ORDER, MAX_Z_ORDER)
    looks = read_looks(report, path, data, folder)
    if report.failed or caption is None:
        return None
    return Instance(caption, **locations, z_order=layer, **looks, others=tuple(others))


def _write_instance(instance: Instance, canvas: Canvas) -> dict[str, Any]:
    data: dict[str, Any] = {"caption": instance.caption}
    data |= {one.kind: one.write(canvas) for one in instance.stated((canvas.height, canvas.width))}
    if instance.z_order is not None:
        data["z_order"] = instance.z_order
    return data | write_looks(instance)


class _Notation(Notation):
    """The native format, for `Scene.to_dict` and `Scene.from_dict`."""

    write = staticmethod(write_native)
    read = staticmethod(read_native)


Scene.notation = _Notation
