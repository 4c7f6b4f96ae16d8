"""The `imagefolder` of Hugging Face `datasets`: pictures, and `metadata.jsonl` with a line for each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from instancediffusion.runs import atomic_path
from instancediffusion.scene import KINDS, Scene, json_text
from instancediffusion.scene.canvas import Canvas
from instancediffusion.scene.checks import check_text, is_array
from instancediffusion.scene.formats.coco.annotations import read_annotation
from instancediffusion.scene.formats.coco.writing import write_annotation
from instancediffusion.scene.formats.foreign.entries import (
    ReadOptions,
    canvas_of,
    make_scene,
    picture_size,
    read_entries,
    whole_number,
)
from instancediffusion.scene.limits import MAX_COCO_BYTES
from instancediffusion.scene.problem_report import Report

from ..dataset_format import DatasetFormat, ReadingOptions, register
from ..dataset_notes import Entry
from ..example import Example, LazyDataset
from ..file_access import Numbers, find_picture, read_bounded, refuse
from ..holding import EVERYTHING
from .shared import read_visible, runs_of

_FILE = "metadata.jsonl"
_PARTS = ("train", "validation", "val", "test")
# Key of a COCO annotation -> the list that holds it for all objects.
_LISTS = {
    "bbox": "bbox",
    "segmentation": "masks",
    "point": "points",
    "scribble": "scribbles",
    "z_order": "z_order",
    "caption": "captions",
    "kinds": "kinds",
}


def _files(path: Path, split: str | None) -> list[Path]:
    if path.is_file():
        return [path]
    folders = [path / split] if split is not None else [path, *(path / part for part in _PARTS)]
    return [folder / _FILE for folder in folders if (folder / _FILE).is_file()]


def recognise(path: Path) -> bool:
    """Whether a path is a metadata.jsonl, or a folder with one."""
    return path.name == _FILE if path.is_file() else bool(_files(path, None))


def read(path: Path, options: ReadingOptions) -> LazyDataset[tuple[Path, int, bytes]]:
    """Open a folder, or its metadata.jsonl; lines are parsed when they are asked for.

    Objects are read as `datasets` writes those of detection: `objects` with parallel lists `bbox` (x, y, width,
    height in pixels) and `categories`; texts as `text`, `prompt` or `caption`. The other lists are ours.
    """
    files = _files(path, options.split)
    if not files:
        raise refuse(path, f"has no {_FILE}", "Parquet and CSV are not read; save the data set as an imagefolder")
    lines = [
        (file, number, line)
        for file in files
        for number, line in enumerate(read_bounded(file, MAX_COCO_BYTES).splitlines(), 1)
        if line.strip()
    ]

    def read_one(report: Report, entry: tuple[Path, int, bytes]) -> Example | None:
        file, number, line = entry
        row = json_text.parse(report, line)
        if report.failed or not isinstance(row, Mapping):
            report.warn("$", f"line {number} of {file} is no JSON object: left out")
            return None
        folders = [options.images] if options.images is not None else []
        return _example(report, row, [*folders, file.parent], options.labels)

    return LazyDataset(os.fspath(path), lines, read_one)


def _example(
    report: Report, row: Mapping[str, Any], folders: list[Path], labels: Sequence[str] | None
) -> Example | None:
    name = row.get("file_name")
    if not isinstance(name, str) or not name:
        report.warn("$.file_name", "names no picture: left out", "give every line a file_name")
        return None
    picture = find_picture(folders, name)
    size = picture_size(picture) if picture is not None else None
    canvas = canvas_of(report, "$", row.get("width"), row.get("height"), ReadOptions(canvas=size))
    objects = row.get("objects")
    if canvas is None:
        return None
    entries = _entries(report, objects if isinstance(objects, Mapping) else {}, labels)
    origin: dict[int, Mapping[str, Any]] = {}

    def read(entry: Report, where: str, item: Mapping[str, Any]) -> Any:
        instance = read_annotation(entry, where, item, canvas, {}, KINDS)
        origin[id(instance)] = item
        return instance

    instances = read_entries(report, entries, read)
    prompt = next((row[key] for key in ("text", "prompt", "caption") if isinstance(row.get(key), str)), None)
    scene = make_scene(report, None, instances, canvas, row.get("negative_prompt")) if prompt is None else None
    if prompt is not None and check_text(report, "$.text", prompt, what="prompt") is not None:
        negative = row.get("negative_prompt")
        negative = negative if isinstance(negative, str) else None
        scene = Scene(prompt, tuple(instances), canvas.width, canvas.height, negative)
    if scene is None or report.failed:
        return None
    items = [origin[id(instance)] for instance in instances]
    visible = tuple(read_visible(report, "$.objects.visible", item["visible"], canvas) for item in items)
    categories = tuple(str(item["category"]) for item in items)
    number = whole_number(row.get("image_id"))
    seen = visible if any(mask is not None for mask in visible) else ()
    return Example(scene, picture, name, 1 if number is None else number, categories, seen)


def _entries(
    report: Report, objects: Mapping[str, Any], labels: Sequence[str] | None
) -> list[tuple[str, Mapping[str, Any]]]:
    """Objects one by one, as COCO annotations; lists that differ in length are cut to the shortest, with a warning."""
    lists = {key: value for key, value in objects.items() if is_array(value)}
    lengths = {key: len(value) for key, value in lists.items()}
    count = min(lengths.values(), default=0)
    if len(set(lengths.values())) > 1:
        report.warn("$.objects", f"has lists of different lengths ({lengths}); {count} objects are read")
    names = next((lists[key] for key in ("categories", "category", "label", "labels") if key in lists), None)
    found: list[tuple[str, Mapping[str, Any]]] = []
    for index in range(count):
        item = {key: lists[name][index] for key, name in _LISTS.items() if name in lists}
        category = names[index] if names is not None else item.get("caption", "")
        number = whole_number(category) if not isinstance(category, str) else None
        if number is not None:
            category = labels[number] if labels is not None and 0 <= number < len(labels) else None
        if category is None:
            report.warn("$.objects", f"object {index} has a class without a name: left out", "name the classes")
            continue
        item |= {"category": category, "caption": item.get("caption") or category}
        item["visible"] = lists["visible"][index] if "visible" in lists else None
        found.append((f"$.objects[{index}]", item))
    return found


def describe(example: Example) -> dict[str, Any]:
    """The row of an example, but for the name of its picture."""
    scene = example.scene
    canvas = Canvas(scene.width, scene.height)
    written = [write_annotation(instance, canvas) for instance in scene.instances]
    objects: dict[str, list[Any]] = {
        name: [item.get(key) or (item.get(key) if key == "z_order" else None) for item in written]
        for key, name in _LISTS.items()
    }
    objects["categories"] = [example.category(index) for index in range(len(written))]
    objects["visible"] = [runs_of(mask) for mask in example.visible or [None] * len(written)]
    row: dict[str, Any] = {"file_name": "", "image_id": 1}
    row |= {"width": scene.width, "height": scene.height, "text": scene.prompt}
    if scene.negative_prompt is not None:
        row["negative_prompt"] = scene.negative_prompt
    return row | {"objects": objects}


def write(entries: Iterator[Entry], folder: Path, categories: Mapping[int | str, str]) -> None:  # noqa: ARG001
    """Write `train/metadata.jsonl` and the pictures beside it; `load_dataset("imagefolder", data_dir=...)` opens it."""
    with atomic_path(folder / "train" / _FILE) as temporary, open(temporary, "w", encoding="utf-8") as file:
        ids = Numbers(1)
        for entry in entries:
            entry.save(folder / "train")
            row = entry.content | {"file_name": entry.file_name, "image_id": ids.own_or_free(entry.image_id)}
            file.write(json.dumps(row, ensure_ascii=True, allow_nan=False) + "\n")


IMAGEFOLDER = register(
    DatasetFormat(
        "imagefolder",
        "imagefolder of Hugging Face datasets",
        EVERYTHING - {"looks"},
        recognise,
        read,
        write,
        describe=describe,
    )
)
