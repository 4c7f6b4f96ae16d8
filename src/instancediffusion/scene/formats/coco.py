"""COCO annotations (instances and captions) to scenes, and scenes with their pictures to COCO annotations."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from instancediffusion.errors import SceneError
from instancediffusion.geometry import fill_rings, mask_box, points_box, xyxy_to_xywh

from .. import text
from ..checks import check_integer, check_object, check_text, is_array
from ..limits import MAX_COCO_BYTES, MAX_INSTANCES, MAX_POLYGON_POINTS, MAX_Z_ORDER
from ..locations import Mask
from ..model import KINDS, Instance, Scene
from ..pixels import (
    Canvas,
    box_to_pixels,
    extent_to_pixels,
    point_to_pixels,
    read_box_xywh,
    read_canvas,
    read_point,
    read_rle,
    read_scribble,
)
from ..report import Report, child, kind, show

Source = str | os.PathLike[str] | Mapping[str, Any]
"""A COCO file, or what `json.load` gives of one."""

_MAX_ID = 2**63 - 1


@dataclass(frozen=True)
class CocoScene:
    """A scene that belongs to a picture.

    Attributes:
        image_id: the picture's number in the COCO file.
        file_name: the picture's file.
        scene: what it shows.
    """

    image_id: int
    file_name: str
    scene: Scene


def read_coco(
    instances: Source,
    captions: Source | None = None,
    *,
    image_ids: Collection[int] | None = None,
    kinds: Collection[str] = KINDS,
) -> list[CocoScene]:
    """Read the scenes of a COCO instances file.

    The caption of an instance is its own if the annotation has one, else the name of its category. The prompt is the
    picture's first caption, else the instances' captions, joined by commas. Crowd regions are no instances and are
    skipped. What cannot be used (a box of no size, a picture without a word) is left out with a `SceneWarning`.

    Args:
        instances: the file with images, annotations and categories.
        captions: the file with the captions of the same images.
        image_ids: read these pictures only.
        kinds: read these kinds of location only; `box` and `mask` are what COCO itself has.

    Raises:
        SceneError: the file is not COCO, with every problem found.
        OSError: a file cannot be opened.
    """
    report = Report(lenient=True)
    data = _open(report, instances)
    texts = _open(report, captions) if captions is not None else None
    scenes: list[CocoScene] = []
    if data is not None and (captions is None or texts is not None):
        names = _categories(report, data)
        prompts = _captions(report, texts or data)
        grouped = _annotations(report, data)
        for path, image in _items(report, data, "images"):
            found = _read_image(report, path, image, grouped, names, prompts, image_ids, kinds)
            if found is not None:
                scenes.append(found)
    report.settle(None if isinstance(instances, Mapping) else os.fspath(instances))
    return scenes


def write_coco(
    scenes: Iterable[CocoScene], *, categories: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return an instances file and a captions file as JSON data; `read_coco` gives the same scenes back.

    What COCO has no key for is kept under keys of ours, which other readers skip: `caption`, `point`, `scribble`,
    `z_order` and `kinds` (the kinds that were stated; `bbox` and `segmentation` are always filled in as well as can
    be) of an annotation, `negative_prompt` of an image.

    Args:
        scenes: the scenes with their pictures, each with its own `image_id`.
        categories: caption -> name of a category; a caption that is not in it is its own category.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    prompts: list[dict[str, Any]] = []
    numbers: dict[str, int] = {}
    for item in scenes:
        scene, canvas = item.scene, Canvas(item.scene.width, item.scene.height)
        image: dict[str, Any] = {"id": item.image_id, "file_name": item.file_name}
        image |= {"width": scene.width, "height": scene.height}
        if scene.negative_prompt is not None:
            image["negative_prompt"] = scene.negative_prompt
        images.append(image)
        prompts.append({"id": len(prompts) + 1, "image_id": item.image_id, "caption": scene.prompt})
        for instance in scene.instances:
            name = (categories or {}).get(instance.caption, instance.caption)
            number = numbers.setdefault(name, len(numbers) + 1)
            head = {"id": len(annotations) + 1, "image_id": item.image_id, "category_id": number, "iscrowd": 0}
            annotations.append(head | _write_annotation(instance, canvas))
    named = [{"id": number, "name": name} for name, number in numbers.items()]
    return (
        {"images": images, "annotations": annotations, "categories": named},
        {"images": [dict(image) for image in images], "annotations": prompts},
    )


def _open(report: Report, source: Source) -> Mapping[str, Any] | None:
    if isinstance(source, Mapping):
        return source
    with open(source, "rb") as file:
        content = file.read(MAX_COCO_BYTES + 1)
    if len(content) > MAX_COCO_BYTES:
        report.error("$", f"is larger than {MAX_COCO_BYTES >> 20} MB", "split it")
        return None
    data = text.parse(report, content)
    return check_object(report, "$", data) if data is not None or not report.failed else None


def _items(report: Report, data: Mapping[str, Any], key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield path and content of each object of a list."""
    if not is_array(data.get(key)):
        found = f"is {kind(data[key])}, not an array" if key in data else "is missing"
        report.error(child("$", key), found, "give a COCO file with images and annotations")
        return
    for index, item in enumerate(data[key]):
        path = child(child("$", key), index)
        checked = check_object(report, path, item)
        if checked is not None:
            yield path, checked


def _number(report: Report, path: str, item: Mapping[str, Any], key: str) -> int | None:
    if key not in item:
        report.error(child(path, key), "is missing", "give every entry its numbers")
        return None
    return check_integer(report, child(path, key), item[key], -_MAX_ID, _MAX_ID)


def _categories(report: Report, data: Mapping[str, Any]) -> dict[int, str]:
    names = {}
    for path, item in _items(report, data, "categories") if "categories" in data else ():
        number = _number(report, path, item, "id")
        name = check_text(report, child(path, "name"), item.get("name"), what="name")
        if number is not None and name is not None:
            names[number] = name
    return names


def _captions(report: Report, data: Mapping[str, Any]) -> dict[int, str]:
    """Return the first caption of each picture. Entries with a category are instances, not captions of a picture."""
    prompts: dict[int, str] = {}
    for path, item in _items(report, data, "annotations"):
        if "category_id" in item or "caption" not in item:
            continue
        image_id = _number(report, path, item, "image_id")
        if image_id is None or image_id in prompts:
            continue
        prompt = check_text(report, child(path, "caption"), item["caption"], what="caption")
        if prompt is not None:
            prompts[image_id] = prompt.strip()
    return prompts


def _annotations(report: Report, data: Mapping[str, Any]) -> dict[int, list[tuple[str, Mapping[str, Any]]]]:
    grouped: dict[int, list[tuple[str, Mapping[str, Any]]]] = {}
    for path, item in _items(report, data, "annotations"):
        image_id = _number(report, path, item, "image_id")
        if image_id is not None and ("category_id" in item or "bbox" in item or "segmentation" in item):
            grouped.setdefault(image_id, []).append((path, item))
    return grouped


def _read_image(
    report: Report,
    path: str,
    image: Mapping[str, Any],
    grouped: Mapping[int, list[tuple[str, Mapping[str, Any]]]],
    names: Mapping[int, str],
    prompts: Mapping[int, str],
    image_ids: Collection[int] | None,
    kinds: Collection[str],
) -> CocoScene | None:
    image_id = _number(report, path, image, "id")
    if image_id is None or (image_ids is not None and image_id not in image_ids):
        return None
    for key in ("width", "height"):
        if key not in image:
            report.error(child(path, key), "is missing", "give the picture's size")
    canvas = read_canvas(report, image, path)
    file_name = image.get("file_name", f"{image_id:012d}.jpg")
    if not isinstance(file_name, str):
        report.error(child(path, "file_name"), f"is {kind(file_name)}, not a string", "name the picture")
        return None
    if canvas is None:
        return None
    annotations = grouped.get(image_id, [])
    if len(annotations) > MAX_INSTANCES:
        report.warn(path, f"has {len(annotations)} instances; only the first {MAX_INSTANCES} are read")
    read = (_read_annotation(report, where, item, canvas, names, kinds) for where, item in annotations[:MAX_INSTANCES])
    instances = tuple(instance for instance in read if instance is not None)
    prompt = prompts.get(image_id) or ", ".join(dict.fromkeys(instance.caption for instance in instances))
    if not prompt:
        report.fault(path, f"image {image_id} has neither a caption nor an instance", "give the captions file")
        return None
    negative = image.get("negative_prompt")
    if negative is not None:
        path = child(path, "negative_prompt")
        negative = check_text(report, path, negative, what="negative prompt", blank=True)
    return CocoScene(image_id, file_name, Scene(prompt, instances, canvas.width, canvas.height, negative))


def _read_annotation(
    report: Report,
    path: str,
    item: Mapping[str, Any],
    canvas: Canvas,
    names: Mapping[int, str],
    kinds: Collection[str],
) -> Instance | None:
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


def _write_annotation(instance: Instance, canvas: Canvas) -> dict[str, Any]:
    data: dict[str, Any] = {"bbox": _bbox(instance, canvas), "area": 0, "segmentation": []}
    data["area"] = data["bbox"][2] * data["bbox"][3]
    if instance.mask is not None:
        data["area"] = instance.mask.area
        data["segmentation"] = {"size": list(instance.mask.size), "counts": instance.mask.counts}
    data |= {"caption": instance.caption, "kinds": list(instance.kinds)}
    if instance.point is not None:
        data["point"] = point_to_pixels(instance.point.x, instance.point.y, canvas)
    if instance.scribble is not None:
        data["scribble"] = [point_to_pixels(x, y, canvas) for x, y in instance.scribble.points]
    if instance.z_order is not None:
        data["z_order"] = instance.z_order
    return data


def _bbox(instance: Instance, canvas: Canvas) -> list[float]:
    """Return [x, y, width, height]: of the box, else of what else is stated, smallest first to be wrong."""
    if instance.box is not None:
        return extent_to_pixels(box_to_pixels(instance.box, canvas))
    if instance.mask is not None:
        extent = mask_box(instance.mask.array) or (0.0, 0.0, 0.0, 0.0)
    elif instance.scribble is not None:
        extent = points_box(instance.scribble.points)
    elif instance.point is not None:
        extent = points_box([(instance.point.x, instance.point.y)])
    else:
        extent = (0.0, 0.0, 0.0, 0.0)
    scale = np.array([canvas.width, canvas.height] * 2)
    return [round(float(value), 6) for value in xyxy_to_xywh(np.array(extent) * scale)]


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def coco_paths(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Return where an instances file and its captions file are written: `x.json` and `x.captions.json`."""
    instances = Path(path)
    return instances, instances.with_suffix(".captions" + (instances.suffix or ".json"))
