"""The native format, version 1: lengths in pixels of `width` x `height`, boxes as two corners."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instancediffusion.errors import SceneError

from ..canvas import Canvas, box_to_pixels, point_to_pixels, read_canvas
from ..checks import check_integer, check_keys, check_object, check_text, is_array
from ..limits import FORMAT_VERSION, MAX_FILE_BYTES, MAX_INSTANCES, MAX_Z_ORDER
from ..locations import Mask
from ..model import KINDS, Instance, Notation, Scene
from ..read_boxes import read_box
from ..read_places import read_point, read_rle, read_scribble
from ..report import Report, child, kind, show
from .beside import file_bytes
from .looks import LOOKS, read_looks, write_looks

REQUIRED_KEYS = ("version", "prompt", "width", "height", "instances")
SCENE_KEYS = (*REQUIRED_KEYS, "negative_prompt", "$schema")
INSTANCE_KEYS = ("caption", *KINDS, "z_order", *LOOKS)

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
_MASK_URIS = ("data:image/png;base64,",)


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
    check_keys(report, path, data, INSTANCE_KEYS, ("caption",), _INSTANCE_HINTS)
    caption = check_text(report, child(path, "caption"), data["caption"], what="caption") if "caption" in data else None
    if not any(name in data for name in KINDS):
        report.error(path, "has no location", 'add a "box", "point", "scribble" or "mask"')
    places: dict[str, Any] = {}
    for name, read in (("box", read_box), ("point", read_point), ("scribble", read_scribble)):
        if name in data:
            places[name] = read(report, child(path, name), data[name], canvas)
    if "mask" in data:
        places["mask"] = _read_mask(report, child(path, "mask"), data["mask"], canvas, folder)
    layer = None
    if "z_order" in data:
        layer = check_integer(report, child(path, "z_order"), data["z_order"], -MAX_Z_ORDER, MAX_Z_ORDER)
    looks = read_looks(report, path, data, folder)
    if report.failed or caption is None:
        return None
    return Instance(caption, **places, z_order=layer, **looks)


def _read_mask(report: Report, path: str, value: object, canvas: Canvas | None, folder: Path | None) -> Mask | None:
    """Read a mask given as run lengths or as {"png": ...}."""
    if not isinstance(value, Mapping) or "png" not in value:
        return read_rle(report, path, value, canvas)
    check_keys(report, path, value, ("png",))
    path = child(path, "png")
    source = check_text(report, path, value["png"], what="file name")
    content = file_bytes(report, path, source, folder, "PNG", _MASK_URIS, MAX_FILE_BYTES) if source else None
    if content is None or canvas is None:
        return None
    try:
        return Mask.from_png(content, (canvas.height, canvas.width))
    except SceneError as error:
        for problem in error.problems:
            report.error(path, problem.message, problem.fix)
        return None


def _write_instance(instance: Instance, canvas: Canvas) -> dict[str, Any]:
    data: dict[str, Any] = {"caption": instance.caption}
    if instance.box is not None:
        data["box"] = box_to_pixels(instance.box, canvas)
    if instance.point is not None:
        data["point"] = point_to_pixels(instance.point.x, instance.point.y, canvas)
    if instance.scribble is not None:
        data["scribble"] = [point_to_pixels(x, y, canvas) for x, y in instance.scribble.points]
    if instance.mask is not None:
        data["mask"] = {"size": list(instance.mask.size), "counts": instance.mask.counts}
    if instance.z_order is not None:
        data["z_order"] = instance.z_order
    return data | write_looks(instance)


class _Notation(Notation):
    """The native format, for `Scene.to_dict` and `Scene.from_dict`."""

    write = staticmethod(write_native)
    read = staticmethod(read_native)


Scene.notation = _Notation
