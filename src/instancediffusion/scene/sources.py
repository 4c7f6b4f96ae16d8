"""Scenes of any file: recognised by its content, read by the reader of its format, named."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from instancediffusion.errors import Problem

from . import text
from .checks import check_object
from .emphasis import syntax_problems
from .formats.coco.reading import read_coco_data
from .formats.foreign.entries import (
    BOX_ORDERS,
    UNITS,
    NamedScene,
    ReadOptions,
    distinct_names,
    scene_name,
    unique_names,
)
from .formats.foreign.label_studio import read_label_studio
from .formats.foreign.labelme import read_labelme
from .formats.foreign.plain_text import read_lmd, read_yolo
from .formats.foreign.plans import read_plan
from .formats.foreign.xml_files import read_cvat, read_voc
from .formats.native import read_native
from .formats.official import read_official
from .formats.recognise import READ, Recognised, json_format, recognise
from .limits import MAX_COCO_BYTES, MAX_FILE_BYTES
from .model import Scene
from .report import Report, child

_HEAD_BYTES = 1 << 18
_READERS = {
    "labelme": read_labelme,
    "label-studio": read_label_studio,
    "yolo": read_yolo,
    "voc": read_voc,
    "cvat": read_cvat,
    "boxes": read_plan,
    "lmd": read_lmd,
}


@dataclass(frozen=True)
class SourceCheck:
    """What became of reading a file of scenes.

    Attributes:
        scenes: those that can be used, each with a name of its own; empty if a problem is an error.
        format: the format the file was read in, a key of `scene.READ`; empty if it is none of them.
        problems: everything that is wrong or was mended, in the order of the file.
    """

    scenes: tuple[NamedScene, ...]
    format: str
    problems: tuple[Problem, ...]


def check_source(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    captions: str | os.PathLike[str] | None = None,
    image_ids: Collection[int | str] | None = None,
    options: ReadOptions | None = None,
) -> SourceCheck:
    """Read the scenes of a file in any format that is known, and collect its problems.

    Args:
        path: the file, at most 1 GB if it is COCO, else 64 MB.
        format: the format to read it in, a key of `scene.READ`; found out from its content if None.
        captions: the captions file that goes with a COCO instances file.
        image_ids: read these pictures of a COCO file only.
        options: what the file does not say by itself.

    Raises:
        OSError: a file cannot be opened.
    """
    with open(path, "rb") as file:
        content = file.read(_HEAD_BYTES)
        # Weights and archives are told from how they begin; gigabytes of them are not read for that.
        if b"\0" not in content or content.startswith(b"\x89PNG"):
            content += file.read(MAX_COCO_BYTES + 1 - _HEAD_BYTES)
    where = Path(path)
    options = replace(options or ReadOptions(), folder=where.parent, name=where.name)
    return check_source_bytes(content, format=format, captions=captions, image_ids=image_ids, options=options)


def check_source_bytes(
    content: bytes,
    *,
    format: str | None = None,
    captions: str | os.PathLike[str] | None = None,
    image_ids: Collection[int | str] | None = None,
    options: ReadOptions | None = None,
) -> SourceCheck:
    """Read the scenes of a file's content, as `check_source` does; `options.folder` is where other files are sought."""
    options = options or ReadOptions()
    _check_options(format, options)
    report = Report()
    if len(content) > MAX_COCO_BYTES or (len(content) > MAX_FILE_BYTES and b'"annotations"' not in content):
        limit = (MAX_COCO_BYTES if b'"annotations"' in content[: 1 << 26] else MAX_FILE_BYTES) >> 20
        report.error("$", f"is larger than {limit} MB", "put masks in PNG files, or use fewer instances")
        return SourceCheck((), "", tuple(report.problems))
    found = recognise(content, report, format)
    if found.format in ("native", "official") and (options.units or options.boxes):
        written = "xyxy" if found.format == "native" else "xywh"  # what the format says, unless it is said otherwise
        options = replace(options, units=options.units or "pixels", boxes=options.boxes or written)
        found = Recognised("boxes", found.content)
    elif found.format not in ("boxes", "") and (options.units or options.boxes):
        told = f"is {READ[found.format]}, whose boxes and units are known"
        report.error("$", told, "leave --boxes and --units out, or say `--from boxes`")
    if not found.format:
        return SourceCheck((), "", tuple(report.problems))
    if captions is not None and found.format != "coco":
        report.error("$", f"is {READ[found.format]}, and a captions file goes with COCO", "leave --captions out")
    scenes = [] if report.failed else _read(found, report, captions, image_ids, options)
    if report.failed:
        scenes = []
    elif not scenes and image_ids is not None and not report.problems:
        report.error("$.images", f"has no picture {', '.join(map(str, image_ids))}", "correct the id")
    elif not scenes:
        fix = "the lines above say why" if report.problems else "give a file with pictures and objects"
        report.error("$", f"is {READ[found.format]} without a scene that can be used", fix)
    for item in scenes:
        for problem in syntax_problems(item.scene, "$" if len(scenes) == 1 else item.name):
            report.add(problem)
    names = unique_names(scene.name for scene in scenes)
    named = tuple(replace(scene, name=name) for scene, name in zip(scenes, names, strict=True))
    return SourceCheck(named, found.format, tuple(report.problems))


def load_scenes(path: str | os.PathLike[str], **options: Any) -> list[NamedScene]:
    """Read the scenes of a file in any format that is known; the arguments are those of `check_source`.

    Raises:
        SceneError: with every problem, if no scene can be used. What was mended or left out comes as `SceneWarning`.
        OSError: a file cannot be opened.
    """
    check = check_source(path, **options)
    settle(check.problems, os.fspath(path), stacklevel=3)
    return list(check.scenes)


def settle(problems: Collection[Problem], source: str, *, stacklevel: int = 2) -> None:
    """Raise `SceneError` if a problem is an error, else issue each as a `SceneWarning`."""
    report = Report()
    for problem in problems:
        report.add(problem)
    report.settle(source, stacklevel=stacklevel + 1)


def _check_options(format: str | None, options: ReadOptions) -> None:
    if format is not None and format not in READ:
        raise ValueError(f"format is one of {', '.join(READ)} or None, not {format!r}")
    for name, value, known in (("units", options.units, UNITS), ("boxes", options.boxes, BOX_ORDERS)):
        if value is not None and value not in known:
            raise ValueError(f"{name} is one of {', '.join(known)} or None, not {value!r}")


def _read(
    found: Recognised,
    report: Report,
    captions: str | os.PathLike[str] | None,
    image_ids: Collection[int | str] | None,
    options: ReadOptions,
) -> list[NamedScene]:
    if found.format == "coco":
        return _read_coco(found.content, report, captions, image_ids)
    if found.format == "picture":
        return _read_picture(found.content, report, options)
    if found.format in ("native", "official"):
        return _read_native(found, report, options)
    report.lenient = True
    reader: Any = _READERS[found.format]
    scenes: list[NamedScene] = reader(found.content, report, options)
    return scenes


def _read_native(found: Recognised, report: Report, options: ReadOptions) -> list[NamedScene]:
    """Read a scene, or a list of them: one that cannot be used is left out."""
    stem = Path(options.name).stem if options.name not in ("", "-") else "scene"
    if not isinstance(found.content, list) or not found.content:
        scene = read_one(found.content, found.format, report, options.folder)
        return [] if scene is None else [NamedScene(scene_name(stem), scene)]
    scenes = []
    for index, data in enumerate(found.content):
        entry = Report()
        kind = json_format(data)
        scene = read_one(data, kind if kind == "official" else "native", entry, options.folder)
        for problem in entry.problems:
            where = child("$", index) + problem.path.removeprefix("$")
            left_out = ": left out" if problem.severity == "error" else ""
            report.warn(where, problem.message + left_out, problem.fix)
        if scene is not None and not entry.failed:
            name = data.get("name")
            name = scene_name(name) if isinstance(name, str) and name.strip() else f"{scene_name(stem)}_{index + 1}"
            scenes.append(NamedScene(name, scene, index + 1))
    return scenes


def read_one(data: Any, format: str, report: Report, folder: Path | None) -> Scene | None:
    """Read JSON data in the native or the published format."""
    report.lenient = format == "official"
    return read_official(data, report) if report.lenient else read_native(data, report, folder)


def _read_coco(
    data: Any, report: Report, captions: str | os.PathLike[str] | None, image_ids: Collection[int | str] | None
) -> list[NamedScene]:
    report.lenient = True
    top = check_object(report, "$", data)
    texts = None
    if captions is not None:
        with open(captions, "rb") as file:
            texts = check_object(report, "$", text.parse(report, file.read(MAX_COCO_BYTES)))
    if top is None or report.failed:
        return []
    scenes = read_coco_data(top, report, texts, image_ids=image_ids)
    names = distinct_names([item.file_name for item in scenes])
    return [
        NamedScene(name, item.scene, item.image_id, item.file_name) for name, item in zip(names, scenes, strict=True)
    ]


def _read_picture(notes: Mapping[str, Any], report: Report, options: ReadOptions) -> list[NamedScene]:
    """Read what a picture of ours was made from."""
    scene = read_native(notes["scene"], report)
    if scene is None:
        return []
    seed, settings, model = notes.get("seed"), notes.get("settings"), notes.get("model")
    stem = scene_name(Path(options.name).stem or "scene")
    if isinstance(seed, int) and not isinstance(seed, bool) and stem.endswith(f"_{seed}"):
        stem = stem.removesuffix(f"_{seed}") or stem  # as `generate` names its pictures
    return [
        NamedScene(
            stem,
            scene,
            seed=seed if isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 else None,
            settings=settings if isinstance(settings, Mapping) else {},
            model=model if isinstance(model, Mapping) else {},
        )
    ]
