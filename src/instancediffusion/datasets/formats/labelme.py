"""LabelMe: a JSON file beside each picture."""

from __future__ import annotations

import base64
import binascii
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from instancediffusion.runs import MANIFEST
from instancediffusion.scene import Instance, Mask, ReadOptions
from instancediffusion.scene.canvas import Canvas, box_to_pixels, point_to_pixels
from instancediffusion.scene.formats.foreign.labelme import read_labelme
from instancediffusion.scene.problem_report import Report

from ..dataset_format import DatasetFormat, ReadingOptions, register
from ..dataset_notes import Entry
from ..example import Example, LazyDataset
from ..file_access import files_under, find_picture, read_json, save_text
from .shared import example_of, kind_of


def recognise(path: Path) -> bool:
    """Whether a path is a folder of LabelMe files."""
    found = sorted(path.glob("*.json")) if path.is_dir() else []
    first = next((file for file in found if file.name != MANIFEST), None)
    return first is not None and kind_of(first) == "labelme"


def read(path: Path, options: ReadingOptions) -> LazyDataset[Path]:
    """Open a folder; a picture that is not beside its file may be inside it."""
    folder = path / options.split if options.split is not None else path

    def read_one(report: Report, file: Path) -> Example | None:
        data = read_json(file)
        if not isinstance(data, Mapping):
            report.warn("$", f"{file.name}: is no LabelMe file: left out")
            return None
        found = read_labelme(data, report, ReadOptions(folder=file.parent, name=file.name))
        if not found or report.failed:
            return None
        name = found[0].file_name or f"{file.stem}.jpg"
        folders = [options.images] if options.images is not None else []
        picture = find_picture([*folders, file.parent], name) or _embedded(data.get("imageData"))
        return example_of(found[0], picture, name)

    files = [file for file in files_under(folder, (".json",)) if file.name != MANIFEST]
    return LazyDataset(os.fspath(path), files, read_one)


def _embedded(value: Any) -> bytes | None:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) and value else None
    except (binascii.Error, ValueError):
        return None


def describe(example: Example) -> dict[str, Any]:
    """The JSON of an example, but for the name of its picture; masks are shapes of the type `mask`."""
    scene = example.scene
    canvas = Canvas(scene.width, scene.height)
    shapes = [
        {"label": example.category(index), "group_id": None, "flags": {}, **_shape(instance, canvas)}
        for index, instance in enumerate(scene.instances)
    ]
    data: dict[str, Any] = {"version": "5.5.0", "flags": {}, "shapes": shapes, "prompt": scene.prompt}
    return data | {"imagePath": "", "imageData": None, "imageHeight": scene.height, "imageWidth": scene.width}


def write(entries: Iterator[Entry], folder: Path, categories: Mapping[int | str, str]) -> None:  # noqa: ARG001
    """Write a JSON file beside each picture."""
    for entry in entries:
        entry.save(folder)
        text = json.dumps(entry.content | {"imagePath": entry.file_name}, ensure_ascii=False, allow_nan=False)
        save_text(folder / f"{Path(entry.file_name).stem}.json", text)


def _shape(instance: Instance, canvas: Canvas) -> dict[str, Any]:
    if instance.mask is not None:
        corners, png = _packed(instance.mask)
        return {"shape_type": "mask", "points": corners, "mask": png}
    if instance.box is not None:
        x0, y0, x1, y1 = box_to_pixels(instance.box, canvas)
        return {"shape_type": "rectangle", "points": [[x0, y0], [x1, y1]]}
    if instance.scribble is not None:
        points = [point_to_pixels(x, y, canvas) for x, y in instance.scribble.points]
        return {"shape_type": "linestrip", "points": points}
    assert instance.point is not None, "an instance has a location"
    return {"shape_type": "point", "points": [point_to_pixels(instance.point.x, instance.point.y, canvas)]}


def _packed(mask: Mask) -> tuple[list[list[float]], str]:
    """The corners of a mask's box, and the part of it in the box as a PNG in base64."""
    from PIL import Image

    bitmap = mask.array
    rows, columns = np.flatnonzero(bitmap.any(1)), np.flatnonzero(bitmap.any(0))
    part = bitmap[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    out = io.BytesIO()
    Image.fromarray(part.astype(np.uint8) * 255).save(out, "PNG")
    corners = [[float(columns[0]), float(rows[0])], [float(columns[-1]), float(rows[-1])]]
    return corners, base64.b64encode(out.getvalue()).decode()


LABELME = register(
    DatasetFormat(
        "labelme",
        "LabelMe",
        frozenset({"box", "point", "scribble", "mask", "prompt", "exact"}),
        recognise,
        read,
        write,
        describe=describe,
    )
)
