"""Scenes of any file: recognised by its content, read by the reader of its format, named."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from instancediffusion.choices import BOX_ORDERS, UNITS
from instancediffusion.errors import Problem

from .emphasis import syntax_problems
from .formats.foreign.entries import NamedScene, ReadOptions, unique_names
from .formats.recognise import OWN, Recognised, recognise
from .formats.scene_format import FORMATS, READ
from .limits import MAX_COCO_BYTES, MAX_FILE_BYTES
from .problem_report import Report

_HEAD_BYTES = 1 << 18


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
        # Weights and archives are recognised by how they begin; gigabytes of them are not read for that.
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
    options = replace(options or ReadOptions(), captions=captions, image_ids=image_ids)
    _check_options(format, options)
    report = Report()
    if len(content) > MAX_COCO_BYTES or (len(content) > MAX_FILE_BYTES and b'"annotations"' not in content):
        limit = (MAX_COCO_BYTES if b'"annotations"' in content[: 1 << 26] else MAX_FILE_BYTES) >> 20
        report.error("$", f"is larger than {limit} MB", "put masks in PNG files, or use fewer instances")
        return SourceCheck((), "", tuple(report.problems))
    found = recognise(content, report, format)
    if found.format in OWN and (options.units or options.boxes):
        written = "xyxy" if found.format == "native" else "xywh"  # what the format says, unless it is said otherwise
        options = replace(options, units=options.units or "pixels", boxes=options.boxes or written)
        found = Recognised("boxes", found.content)
    elif found.format not in ("boxes", "") and (options.units or options.boxes):
        message = f"is {READ[found.format]}, whose boxes and units are known"
        report.error("$", message, "leave --boxes and --units out, or say `--from boxes`")
    if not found.format:
        return SourceCheck((), "", tuple(report.problems))
    if captions is not None and found.format != "coco":
        report.error("$", f"is {READ[found.format]}, and a captions file goes with COCO", "leave --captions out")
    scenes = [] if report.failed else _read(found, report, options)
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


def _read(found: Recognised, report: Report, options: ReadOptions) -> list[NamedScene]:
    format = FORMATS[found.format]
    report.lenient = format.lenient
    return [] if format.read is None else format.read(found.content, report, options)
