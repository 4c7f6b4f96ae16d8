"""CVAT for images: one XML file, a folder of pictures."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np

from instancediffusion.runs import write_atomic
from instancediffusion.scene import Instance, Mask, ReadOptions
from instancediffusion.scene.canvas import Canvas, box_to_pixels, point_to_pixels
from instancediffusion.scene.formats.foreign.entries import scene_name, whole_number
from instancediffusion.scene.formats.foreign.xml_files import parse_xml, read_cvat_image
from instancediffusion.scene.problem_report import Report

from ..dataset_format import DatasetFormat, ReadingOptions, register
from ..dataset_notes import Entry
from ..example import Example, LazyDataset
from ..file_access import Numbers, find_picture, read_bounded, refuse
from ..holding import FEATURES
from .shared import kind_of, line_of, one_line, with_places

_FILE = "annotations.xml"
_MAX_BYTES = 512 << 20


def recognise(path: Path) -> bool:
    """Whether a path is a CVAT file or a folder with one."""
    return kind_of(path / _FILE if path.is_dir() else path) == "cvat"


def read(path: Path, options: ReadingOptions) -> LazyDataset[tuple[str, ET.Element]]:
    """Open a file, or the one of a folder; the part (`split`) is the `subset` of a picture."""
    file = path / _FILE if path.is_dir() else path
    root = parse_xml(read_bounded(file, _MAX_BYTES).decode("utf-8-sig", "replace"))
    if root is None or root.tag != "annotations" or root.find("track") is not None:
        message = "is no CVAT file of images, is damaged, or declares entities"
        raise refuse(file, message, "export as `CVAT for images`")
    images = [(f"/annotations/image[{index}]", image) for index, image in enumerate(root.iter("image"), 1)]
    if options.split is not None:
        images = [item for item in images if item[1].get("subset") == options.split]
    folders = [options.images] if options.images is not None else []
    folders += [file.parent / "images", file.parent]
    names = [name for label in root.iter("label") if (name := (label.findtext("name") or "").strip())]

    def read_one(report: Report, entry: tuple[str, ET.Element]) -> Example | None:
        where, image = entry
        name = image.get("name", "")
        scene = read_cvat_image(report, where, image, ReadOptions(folder=file.parent, name=scene_name(name)))
        if scene is None or report.failed:
            return None
        number = whole_number(image.get("id"))
        captions = tuple(instance.caption for instance in scene.instances)
        return Example(scene, find_picture(folders, name), name, 1 if number is None else number, captions)

    return LazyDataset(os.fspath(path), images, read_one, dict(enumerate(dict.fromkeys(names))))


def adjust(example: Example, lost: Counter[str]) -> Example:
    """An order is held where every instance states one and they differ: a layer that is not stated is layer 0."""
    layers = [instance.z_order for instance in example.scene.instances]
    if any(layer is not None for layer in layers) and (None in layers or len(set(layers)) == 1):
        lost[FEATURES["z_order"]] += 1
        example = with_places(example, lambda instance: replace(instance, z_order=None))
    return one_line(example, lost)


def describe(example: Example) -> dict[str, Any]:
    """The size of an example, the XML of its shapes, and their labels."""
    scene, shapes = example.scene, list[str]()
    labels = [example.category(index) for index in range(len(scene.instances))]
    for label, instance in zip(labels, scene.instances, strict=True):
        shape = _shape(instance, Canvas(scene.width, scene.height))
        shape.set("label", label)
        shape.set("occluded", "0")
        shape.set("z_order", str(instance.z_order or 0))
        shapes.append(ET.tostring(shape, encoding="unicode"))
    return {"width": str(scene.width), "height": str(scene.height), "shapes": "".join(shapes), "labels": labels}


def write(entries: Iterator[Entry], folder: Path, categories: Mapping[int | str, str]) -> None:
    """Write `annotations.xml` and `images/`."""
    used = dict.fromkeys(line_of(name) for name in categories.values())
    ids, images, end = Numbers(0, lowest=0), list[str](), "</image>"
    for entry in entries:
        entry.save(folder / "images")
        used |= dict.fromkeys(entry.content["labels"])
        facts = {"id": str(ids.free(entry.image_id)), "name": entry.file_name}
        image = ET.Element("image", facts | {side: entry.content[side] for side in ("width", "height")})
        empty = ET.tostring(image, encoding="unicode", short_empty_elements=False)
        images.append(empty.removesuffix(end) + entry.content["shapes"] + end)
    labels = ET.Element("labels")
    for name in used:
        ET.SubElement(ET.SubElement(labels, "label"), "name").text = name
    head = f"<version>1.1</version><meta><task>{ET.tostring(labels, encoding='unicode')}</task></meta>"
    write_atomic(folder / _FILE, f"<annotations>{head}{''.join(images)}</annotations>")


def _shape(instance: Instance, canvas: Canvas) -> ET.Element:
    if instance.mask is not None:
        return _mask(instance.mask)
    if instance.box is not None:
        corners = box_to_pixels(instance.box, canvas)
        return ET.Element("box", dict(zip(("xtl", "ytl", "xbr", "ybr"), map(repr, corners), strict=True)))
    if instance.scribble is not None:
        tag, points = "polyline", list(instance.scribble.points)
    else:
        assert instance.point is not None, "an instance has a location"
        tag, points = "points", [(instance.point.x, instance.point.y)]
    pairs = [point_to_pixels(x, y, canvas) for x, y in points]
    return ET.Element(tag, {"points": ";".join(f"{x!r},{y!r}" for x, y in pairs)})


def _mask(mask: Mask) -> ET.Element:
    """A mask as run lengths of its box, row by row, those of unset pixels first."""
    bitmap = mask.array
    rows, columns = np.flatnonzero(bitmap.any(1)), np.flatnonzero(bitmap.any(0))
    part = bitmap[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    flat = np.concatenate([[False], part.ravel()])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    runs = np.diff(np.concatenate([[0], edges, [part.size]]))
    frame = {"left": columns[0], "top": rows[0], "width": part.shape[1], "height": part.shape[0]}
    return ET.Element("mask", {"rle": ", ".join(map(str, runs)), **{key: str(value) for key, value in frame.items()}})


CVAT = register(
    DatasetFormat(
        "cvat",
        "CVAT",
        frozenset({"box", "point", "scribble", "mask", "z_order", "exact"}),
        recognise,
        read,
        write,
        adjust,
        describe,
    )
)
