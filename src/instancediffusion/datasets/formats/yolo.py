"""YOLO (detect, segment): `data.yaml`, pictures under `images/`, a text file for each under `labels/`."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from instancediffusion.errors import SettingsError
from instancediffusion.geometry import mask_ring
from instancediffusion.runs import write_atomic
from instancediffusion.scene import Instance, ReadOptions
from instancediffusion.scene.formats.foreign.entries import picture_size
from instancediffusion.scene.formats.foreign.plain_text import read_labels, read_yolo
from instancediffusion.scene.limits import PICTURE_SUFFIXES
from instancediffusion.scene.problem_report import Report

from ..dataset_format import DatasetFormat, ReadingOptions, register
from ..dataset_notes import Entry
from ..example import Example, LazyDataset
from ..file_access import files_under, numbered, read_bounded, save_text
from .shared import example_of, line_of, one_line, outlined

_YAML = (".yaml", ".yml")
_PARTS = ("train", "val", "valid")
_CLASSES = ("classes.txt", "obj.names", "data.yaml", "data.yml", "dataset.yaml", "notes.json")


def recognise(path: Path) -> bool:
    """Whether a path is a data.yaml, or a folder with labels or with parts that have labels."""
    if path.is_dir():
        return (path / "labels").is_dir() or any(
            (path / part / "labels").is_dir() for part in ("train", "val", "valid")
        )
    return path.suffix.lower() in (".yaml", ".yml") and read_labels(path) is not None


def read(path: Path, options: ReadingOptions) -> LazyDataset[tuple[Path, Path]]:
    """Open a folder or its data.yaml; pictures without a label file show nothing that is known, and are no entries."""
    root = path if path.is_dir() else path.parent
    labels = list(options.labels) if options.labels is not None else _labels(root, path)
    if labels is None:
        raise SettingsError(f"{root}: YOLO classes are numbers, and no classes.txt or data.yaml names them")
    pictures = _pictures(root, path, options)
    entries = [(picture, label) for picture in pictures if (label := _label_file(picture)) is not None]

    def read_one(report: Report, entry: tuple[Path, Path]) -> Example | None:
        return _read_one(report, *entry, labels)

    return LazyDataset(os.fspath(root), entries, read_one, dict(enumerate(labels)))


def _read_one(report: Report, picture: Path, label: Path, labels: Sequence[str]) -> Example | None:
    size = picture_size(picture)
    if size is None:
        report.warn("$", f"{picture.name}: cannot be read as a picture: left out", "replace it")
        return None
    text = read_bounded(label).decode("utf-8-sig", "replace")
    if not text.strip():
        report.warn("$", f"{label.name}: names no object: left out", "label it, or leave it out")
        return None
    found = read_yolo(text, report, ReadOptions(labels, canvas=size, name=label.name))
    return None if not found or report.failed else example_of(found[0], picture, picture.name)


def _labels(root: Path, path: Path) -> list[str] | None:
    candidates = [root / name for name in _CLASSES] + ([path] if path.is_file() else [])
    return next((labels for file in candidates if file.is_file() and (labels := read_labels(file))), None)


def _pictures(root: Path, path: Path, options: ReadingOptions) -> list[Path]:
    if options.images is not None:
        return files_under(options.images, PICTURE_SUFFIXES)
    if options.split is None:
        return files_under(root, PICTURE_SUFFIXES)
    split = options.split
    candidates = [root / "images" / split, root / split / "images", root / split]
    named = [path] if path.is_file() else [root / name for name in _CLASSES if Path(name).suffix in _YAML]
    yaml = next((file for file in named if file.is_file() and file.suffix in _YAML), None)
    if yaml is not None:
        text = read_bounded(yaml).decode("utf-8-sig", "replace")
        found = re.search(rf"^{re.escape(split)}[ \t]*:[ \t]*['\"]?([^#\n'\"]+)", text, re.MULTILINE)
        candidates[:0] = [root / found[1].strip().removeprefix("../")] if found is not None else []
    inside = [folder for folder in candidates if folder.is_dir() and folder.resolve().is_relative_to(root.resolve())]
    return files_under(inside[0], PICTURE_SUFFIXES) if inside else []


def _label_file(picture: Path) -> Path | None:
    """The label file of a picture: in `labels` where it is in `images`, else beside it."""
    parts = list(picture.parts)
    candidates = [picture.with_suffix(".txt")]
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        candidates.insert(0, Path(*parts[:last], "labels", *parts[last + 1 :]).with_suffix(".txt"))
    return next((path for path in candidates if path.is_file()), None)


def adjust(example: Example, lost: Counter[str]) -> Example:
    """Masks become polygons, labels lines of text."""
    return outlined(one_line(example, lost), lost)


def describe(example: Example) -> list[list[str]]:
    """The category of each object, and the numbers of its line."""
    return [[example.category(k), _numbers(one, example)] for k, one in enumerate(example.scene.instances)]


def write(entries: Iterator[Entry], folder: Path, categories: Mapping[int | str, str]) -> None:
    """Write `images/train`, `labels/train`, `data.yaml` and `classes.txt`; classes are numbered in their order."""
    numbers = numbered({key: line_of(name) for key, name in categories.items()}, iter(()))
    for entry in entries:
        lines = [f"{numbers.setdefault(name, len(numbers))} {values}\n" for name, values in entry.content]
        entry.save(folder / "images" / "train")
        save_text(folder / "labels" / "train" / Path(entry.file_name).with_suffix(".txt").name, "".join(lines))
    write_atomic(folder / "classes.txt", "".join(f"{name}\n" for name in numbers))
    named = "".join(f"  {number}: {json.dumps(name, ensure_ascii=False)}\n" for name, number in numbers.items())
    write_atomic(folder / "data.yaml", f"train: images/train\nval: images/train\nnames:\n{named}")


def _numbers(instance: Instance, example: Example) -> str:
    if instance.mask is not None:
        ring = mask_ring(instance.mask.array) / (example.scene.width, example.scene.height)
        values = ring.ravel().tolist()
    else:
        assert instance.box is not None, "held() leaves boxes and masks"
        box = instance.box
        values = [*box.centre, box.x1 - box.x0, box.y1 - box.y0]
    return " ".join(f"{value:.12g}" for value in values)


YOLO = register(
    DatasetFormat("yolo", "YOLO", frozenset({"box", "mask", "exact"}), recognise, read, write, adjust, describe)
)
