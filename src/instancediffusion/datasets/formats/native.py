"""Scene files of this program, each beside its picture; and pictures made here, which carry their scene."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from instancediffusion.runs import MANIFEST
from instancediffusion.scene import ReadOptions, check_source_bytes, scene_text
from instancediffusion.scene.limits import PICTURE_SUFFIXES
from instancediffusion.scene.problem_report import Report

from ..dataset_format import DatasetFormat, ReadingOptions, register
from ..dataset_notes import Entry
from ..example import MAX_PICTURE_BYTES, Example, LazyDataset
from ..file_access import files_under, find_picture, read_bounded, save_text
from ..holding import EVERYTHING
from .shared import kind_of


def _files(folder: Path) -> list[Path]:
    scenes = [path for path in files_under(folder, (".json",)) if path.name != MANIFEST]
    named = {path.with_suffix("") for path in scenes}
    return scenes + [path for path in files_under(folder, (".png",)) if path.with_suffix("") not in named]


def recognise(path: Path) -> bool:
    """Whether a path is a folder of scenes, or of pictures made here."""
    first = next(iter(_files(path)), None) if path.is_dir() else None
    return first is not None and kind_of(first) in ("native", "official", "picture")


def read(path: Path, options: ReadingOptions) -> LazyDataset[Path]:
    """Open a folder."""
    folder = path / options.split if options.split is not None else path

    def read_one(report: Report, file: Path) -> Example | None:
        content = read_bounded(file, MAX_PICTURE_BYTES)
        check = check_source_bytes(content, options=ReadOptions(folder=file.parent, name=file.name))
        for problem in check.problems:
            report.add(problem)
        if len(check.scenes) != 1:
            if check.scenes:
                report.warn("$", f"{file.name}: holds {len(check.scenes)} scenes: left out", "write one in each file")
            return None
        found = check.scenes[0]
        image: Path | None = file
        if check.format != "picture":
            folders = [options.images] if options.images is not None else []
            names = [found.file_name] if found.file_name else [file.stem + suffix for suffix in PICTURE_SUFFIXES]
            pictures = (find_picture([*folders, file.parent, file.parent / "images"], name) for name in names)
            image = next((picture for picture in pictures if picture is not None), None)
        name = image.name if image is not None else f"{file.stem}.png"
        return Example(found.scene, image, name, found.image_id)

    return LazyDataset(os.fspath(path), _files(folder), read_one)


def describe(example: Example) -> str:
    """The scene file of an example."""
    return scene_text(example.scene)


def write(entries: Iterator[Entry], folder: Path, categories: Mapping[int | str, str]) -> None:  # noqa: ARG001
    """Write a scene file beside each picture."""
    for entry in entries:
        entry.save(folder)
        save_text(folder / f"{Path(entry.file_name).stem}.json", entry.content)


NATIVE = register(
    DatasetFormat(
        "native", "scene files", EVERYTHING - {"category", "visible"}, recognise, read, write, describe=describe
    )
)
