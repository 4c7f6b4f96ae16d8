"""COCO files to scenes."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ... import text
from ...canvas import read_canvas
from ...checks import check_integer, check_object, check_text, is_array
from ...limits import MAX_COCO_BYTES, MAX_INSTANCES
from ...model import KINDS, Scene
from ...report import Report, child, kind
from .annotations import read_annotation
from .coco_scene import CocoScene

Source = str | os.PathLike[str] | Mapping[str, Any]
"""A COCO file, or what `json.load` gives of one."""

_MAX_ID = 2**63 - 1


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
    read = (read_annotation(report, where, item, canvas, names, kinds) for where, item in annotations[:MAX_INSTANCES])
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
