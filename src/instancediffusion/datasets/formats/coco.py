"""COCO and LVIS: one JSON file of instances, one of captions, a folder of pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from instancediffusion.errors import SettingsError
from instancediffusion.runs import atomic_path
from instancediffusion.scene import KINDS, CocoScene, Instance, coco_paths, write_coco
from instancediffusion.scene.canvas import Canvas
from instancediffusion.scene.checks import check_object, is_array
from instancediffusion.scene.formats.coco.annotations import is_crowd, read_annotation
from instancediffusion.scene.formats.coco.coco_scene import key_of
from instancediffusion.scene.formats.coco.reading import CocoFile, check_lists, read_image
from instancediffusion.scene.formats.foreign.entries import whole_number
from instancediffusion.scene.limits import MAX_COCO_BYTES
from instancediffusion.scene.problem_report import Report

from ..dataset_format import DatasetFormat, ReadingOptions, register
from ..dataset_notes import Entry
from ..example import Example, LazyDataset
from ..file_access import Numbers, find_picture, read_json, refuse
from ..holding import EVERYTHING
from .amodal import as_coco
from .shared import kind_of, read_visible, runs_of

_ANNOTATIONS = ("instances*.json", "annotations.json", "_annotations.coco.json", "lvis*.json")
_FOLDERS = (".", "annotations", "train", "valid", "val", "test")


def _candidates(folder: Path) -> list[Path]:
    """Instances files of a folder: COCO's own layout, ours, and that of exports with a folder for each part."""
    found = [
        path
        for name in _FOLDERS
        for pattern in _ANNOTATIONS
        for path in sorted((folder / name).glob(pattern))
        if ".captions" not in path.name and path.is_file()
    ]
    return list(dict.fromkeys(found))


def recognise(path: Path) -> bool:
    """Whether a path is a COCO file or a folder that holds one."""
    if path.is_dir():
        return any(kind_of(found) == "coco" for found in _candidates(path))
    return path.suffix.lower() == ".json" and kind_of(path) == "coco"


def read(path: Path, options: ReadingOptions) -> LazyDataset[tuple[str, Mapping[str, Any]]]:
    """Open an instances file, or the one of a folder; the JSON is read at once, its pictures one by one."""
    file = _annotations_file(path, options) if path.is_dir() else path
    data = read_json(file, MAX_COCO_BYTES)
    captions = options.captions or _captions_file(file)
    texts = None if captions is None else read_json(captions, MAX_COCO_BYTES)
    report = Report(lenient=True)
    if isinstance(data, list):
        message = "is a COCO results file: detections, without the pictures' sizes and the names of the classes"
        raise refuse(file, message, "give the annotations file they belong to")
    for content in (data,) if texts is None else (data, texts):
        if check_object(report, "$", content) is not None:
            check_lists(report, content)
    report.settle(os.fspath(file))
    data = as_coco(data)
    if any(isinstance(item, Mapping) and "segments_info" in item for item in data["annotations"][:100]):
        message = "is a COCO panoptic file, whose masks are in PNG files of their own"
        raise refuse(file, message, "give the instances file (panoptic sets have one: instances_*.json)")
    report = Report(lenient=True)
    content = CocoFile(report, data, texts, None)
    if data["annotations"] and not any(content.annotations.values()):
        raise refuse(file, "is a COCO captions file: no object has a location", "give the instances file, this with it")
    report.settle(os.fspath(file))
    folders = _picture_folders(file, options)

    def read_one(entry: Report, item: tuple[str, Mapping[str, Any]]) -> Example | None:
        found = read_image(entry, *item, content, KINDS)
        return None if found is None else _example(entry, item[0], found, content, folders)

    return LazyDataset(os.fspath(file), content.images, read_one, dict(content.names))


def crowd_regions(path: Path) -> dict[int | str, list[tuple[str, Instance]]]:
    """Read the regions that hold a crowd of objects, which are no instances and no data set has.

    Args:
        path: an instances file, or a folder that holds one; anything else has no such regions.

    Returns:
        By the picture's id, the category and the location of each region.
    """
    if not path.exists() or not recognise(path):
        return {}
    file = _annotations_file(path, ReadingOptions()) if path.is_dir() else path
    data = read_json(file, MAX_COCO_BYTES)
    if not isinstance(data, Mapping) or not all(is_array(data.get(key)) for key in ("images", "annotations")):
        return {}
    content = CocoFile(Report(lenient=True), data, None, None)
    found: dict[int | str, list[tuple[str, Instance]]] = {}
    for _, image in content.images:
        number, sides = key_of(image.get("id")), [whole_number(image.get(side)) for side in ("width", "height")]
        if number is None or sides[0] is None or sides[1] is None:
            continue
        for place, item in content.annotations.get(number, []):
            if is_crowd(item):
                report = Report(lenient=True)
                whole = {**item, "iscrowd": 0}
                region = read_annotation(report, place, whole, Canvas(sides[0], sides[1]), content.names, KINDS)
                if region is not None and not report.failed:
                    found.setdefault(number, []).append((region.caption, region))
    return found


def _example(report: Report, path: str, found: CocoScene, content: CocoFile, folders: list[Path]) -> Example:
    scene = found.scene
    categories, visible = [], []
    for instance, annotation in zip(scene.instances, found.annotations, strict=True):
        number = key_of(annotation.get("category_id"))
        name = content.names.get(number, instance.caption) if number is not None else instance.caption
        categories.append(name)
        canvas = Canvas(scene.width, scene.height)
        visible.append(read_visible(report, f"{path}.visible", annotation.get("visible"), canvas))
    picture = find_picture(folders, found.file_name)
    seen = tuple(visible) if any(mask is not None for mask in visible) else ()
    return Example(scene, picture, found.file_name, found.image_id, tuple(categories), seen)


def _annotations_file(folder: Path, options: ReadingOptions) -> Path:
    found = [path for path in _candidates(folder) if kind_of(path) == "coco"]
    if options.split is not None:
        split = options.split
        found = [path for path in found if split in path.stem or path.parent.name == split]
    if len(found) == 1:
        return found[0]
    names = ", ".join(os.fspath(path.relative_to(folder)) for path in found[:6]) or "none"
    raise SettingsError(f"{folder}: one instances file is read, here are: {names}; name the file, or the split")


def _captions_file(file: Path) -> Path | None:
    own = coco_paths(file)[1]
    others = [file.with_name(file.name.replace("instances_", "captions_"))] if "instances_" in file.name else []
    return next((path for path in (own, *others) if path.is_file()), None)


def _picture_folders(file: Path, options: ReadingOptions) -> list[Path]:
    """Where pictures are sought: COCO keeps those of `annotations/instances_val2017.json` in `val2017/`."""
    roots = [file.parent, file.parent.parent] if file.parent.name == "annotations" else [file.parent]
    split = file.stem.rpartition("_")[2]
    folders = [root / name for root in roots for name in (".", "images", split, f"images/{split}")]
    if split in ("train", "val", "test"):  # LVIS says `lvis_v1_val`, and takes the pictures of COCO
        folders += [root / f"{name}2017" for root in roots for name in ("val", "train", "test")]
    return ([options.images] if options.images is not None else []) + folders


def describe(example: Example) -> dict[str, Any]:
    """The image, caption and annotations of an example; numbers and names are those of the data set."""
    instances, texts = write_coco([CocoScene(1, "", example.scene)])
    names = [example.category(index) for index in range(len(example.scene.instances))]
    for entry, mask in zip(instances["annotations"], example.visible, strict=False):
        if mask is not None:
            entry["visible"] = runs_of(mask)
    image, caption = instances["images"][0], texts["annotations"][0]
    return {"image": image, "caption": caption, "annotations": instances["annotations"], "categories": names}


def write(entries: Iterator[Entry], folder: Path, categories: Mapping[int | str, str]) -> None:
    """Write `instances.json`, `instances.captions.json` and `images/`; numbers of categories and pictures are kept."""
    numbers = {name: number for number, name in categories.items() if isinstance(number, int)}
    ids = Numbers(1)
    images: list[str] = []
    captions: list[str] = []
    annotations: list[str] = []
    for name in categories.values():
        numbers.setdefault(name, max(numbers.values(), default=0) + 1)
    for entry in entries:
        image_id = ids.free(entry.image_id)
        entry.save(folder / "images")
        content = entry.content
        images.append(_json(content["image"] | {"id": image_id, "file_name": entry.file_name}))
        captions.append(_json(content["caption"] | {"id": len(captions) + 1, "image_id": image_id}))
        for name, annotation in zip(content["categories"], content["annotations"], strict=True):
            number = numbers.setdefault(name, max(numbers.values(), default=0) + 1)
            own = {"id": len(annotations) + 1, "image_id": image_id, "category_id": number}
            annotations.append(_json(annotation | own))
    named = [_json({"id": number, "name": name}) for name, number in numbers.items()]
    paths = coco_paths(folder / "instances.json")
    _write(paths[1], {"images": images, "annotations": captions})
    _write(paths[0], {"images": images, "annotations": annotations, "categories": named})


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _write(path: Path, lists: Mapping[str, list[str]]) -> None:
    """Write lists of entries that are JSON already, an entry in each line."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for number, (key, entries) in enumerate(lists.items()):
            file.write(("{" if not number else ",\n") + f'"{key}": [\n')
            file.write(",\n".join(entries) + "\n]")
        file.write("}\n")


COCO = register(DatasetFormat("coco", "COCO", EVERYTHING, recognise, read, write, describe=describe))
