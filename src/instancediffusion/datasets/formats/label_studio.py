"""Label Studio: one JSON file of tasks, a folder of pictures."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from instancediffusion.geometry import mask_ring
from instancediffusion.runs import atomic_path
from instancediffusion.scene import Instance, ReadOptions
from instancediffusion.scene.checks import is_array
from instancediffusion.scene.formats.foreign.entries import picture_size
from instancediffusion.scene.formats.foreign.label_studio import read_task
from instancediffusion.scene.limits import MAX_COCO_BYTES
from instancediffusion.scene.problem_report import Report

from ..dataset_format import DatasetFormat, ReadingOptions, register
from ..dataset_notes import Entry
from ..example import Example, LazyDataset
from ..file_access import Numbers, find_picture, read_json
from .shared import example_of, kind_of, outlined

_FILE = "tasks.json"


def _file(path: Path) -> Path | None:
    if path.is_file():
        return path
    found = [path / _FILE, *sorted(path.glob("project-*.json"))]
    return next((file for file in found if file.is_file()), None)


def recognise(path: Path) -> bool:
    """Whether a path is an export, or a folder with one."""
    file = _file(path)
    return file is not None and kind_of(file) == "label-studio"


def read(path: Path, options: ReadingOptions) -> LazyDataset[tuple[int, Any]]:
    """Open an export, in the full or the short (JSON-MIN) form."""
    file = _file(path) or path / _FILE
    data = read_json(file, MAX_COCO_BYTES)
    tasks = list(enumerate(data if is_array(data) else [data], 1))
    folders = [options.images] if options.images is not None else []
    folders += [file.parent / "images", file.parent]

    def read_one(report: Report, entry: tuple[int, Any]) -> Example | None:
        number, task = entry
        picture = _picture(task, folders)
        size = picture_size(picture) if picture is not None else None
        found = read_task(report, f"$[{number - 1}]", task, number, ReadOptions(canvas=size))
        return None if found is None or report.failed else example_of(found, picture)

    return LazyDataset(os.fspath(path), tasks, read_one)


def _picture(task: Any, folders: list[Path]) -> Path | None:
    content = task.get("data", task) if isinstance(task, Mapping) else {}
    texts = [item for item in content.items() if isinstance(item[1], str)] if isinstance(content, Mapping) else []
    named = sorted(
        (key not in ("image", "img", "picture", "url"), text) for key, text in texts if isinstance(text, str)
    )
    for _, text in named:
        served = text.rpartition("?d=")[2]  # local files are served as /data/local-files/?d=folder/picture.jpg
        found = find_picture(folders, served)
        if found is not None:
            return found
    return None


def describe(example: Example) -> dict[str, Any]:
    """The prompt and the results of an example; masks are polygons."""
    scene = example.scene
    frame = {"original_width": scene.width, "original_height": scene.height, "image_rotation": 0}
    results = [
        {"id": "", "from_name": "label", "to_name": "image", **frame}
        | _result(instance, example.category(index), (scene.width, scene.height))
        for index, instance in enumerate(scene.instances)
    ]
    return {"prompt": scene.prompt, "results": results}


def write(entries: Iterator[Entry], folder: Path, categories: Mapping[int | str, str]) -> None:  # noqa: ARG001
    """Write `tasks.json` and `images/`."""
    with atomic_path(folder / _FILE) as temporary, open(temporary, "w", encoding="utf-8") as file:
        lead, ids = "[\n", Numbers(1)
        for entry in entries:
            number = ids.free(entry.image_id)
            entry.save(folder / "images")
            results = [one | {"id": f"{number}-{index}"} for index, one in enumerate(entry.content["results"])]
            data = {"image": entry.file_name, "prompt": entry.content["prompt"]}
            task = {"id": number, "data": data, "annotations": [{"result": results}]}
            file.write(lead + json.dumps(task, ensure_ascii=False, allow_nan=False))
            lead = ",\n"
        file.write("\n]\n" if lead != "[\n" else "[]\n")


def _result(instance: Instance, label: str, size: tuple[int, int]) -> dict[str, Any]:
    value: dict[str, Any]
    if instance.mask is not None:
        kind, ring = "polygonlabels", mask_ring(instance.mask.array) * 100 / size
        value = {"points": ring.tolist(), "closed": True}
    elif instance.box is not None:
        x0, y0, x1, y1 = (number * 100 for number in instance.box.xyxy)
        kind, value = "rectanglelabels", {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0, "rotation": 0}
    elif instance.scribble is not None:
        vertices = [{"x": x * 100, "y": y * 100} for x, y in instance.scribble.points]
        kind, value = "vectorlabels", {"vertices": vertices, "closed": False}
    else:
        assert instance.point is not None, "an instance has a location"
        kind, value = "keypointlabels", {"x": instance.point.x * 100, "y": instance.point.y * 100, "width": 0.5}
    return {"type": kind, "value": value | {kind: [label]}}


def adjust(example: Example, lost: Counter[str]) -> Example:
    """Masks become polygons."""
    return outlined(example, lost)


LABEL_STUDIO = register(
    DatasetFormat(
        "label-studio",
        "Label Studio",
        frozenset({"box", "point", "scribble", "mask", "prompt", "exact"}),
        recognise,
        read,
        write,
        adjust,
        describe,
    )
)
