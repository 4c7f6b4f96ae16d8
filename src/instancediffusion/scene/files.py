"""Scene files: find out the format, read and check, write."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from instancediffusion.errors import Problem, SceneError

from . import text
from .formats.native import read_native, write_native
from .formats.official import read_official, write_official
from .limits import MAX_FILE_BYTES
from .model import Scene
from .report import Report

Format = Literal["native", "official"]
FORMATS: tuple[Format, ...] = ("native", "official")


@dataclass(frozen=True)
class SceneCheck:
    """What became of reading a scene file.

    Attributes:
        scene: the scene, or None if any problem is an error.
        format: the format the file was read in.
        problems: every problem, errors and warnings, in the order of the file.
    """

    scene: Scene | None
    format: Format
    problems: tuple[Problem, ...]


def check_scene(path: str | os.PathLike[str], *, format: Format | None = None) -> SceneCheck:
    """Read a scene file and collect its problems instead of raising or warning.

    Args:
        path: the file, at most 64 MB.
        format: the format to read it in; found out from its keys if None.

    Raises:
        OSError: the file cannot be opened.
    """
    with open(path, "rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    return check_scene_text(content, format=format, folder=Path(path).parent)


def check_scene_text(
    content: str | bytes,
    *,
    format: Format | None = None,
    folder: Path | None = None,
) -> SceneCheck:
    """Read the text of a scene file and collect its problems, as `check_scene` does.

    Args:
        content: the text, at most 64 MB.
        format: the format to read it in; found out from its keys if None.
        folder: where mask files named in the scene lie; without it none is read.
    """
    if format is not None and format not in FORMATS:
        raise ValueError(f"format is one of {', '.join(FORMATS)} or None, not {format!r}")
    report, scene = Report(), None
    found: Format = format or "native"
    encoded = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    if len(encoded) > MAX_FILE_BYTES:
        report.error("$", f"is larger than {MAX_FILE_BYTES >> 20} MB", "put masks in PNG files, or use fewer instances")
        return SceneCheck(None, found, tuple(report.problems))
    data = text.parse(report, encoded)
    if data is None and report.failed:
        return SceneCheck(None, found, tuple(report.problems))
    if format is None and _is_coco(data):
        fix = "a COCO file holds many scenes: read it with read_coco, or `instancediffusion scene convert`"
        report.error("$", "is a COCO file, not a scene", fix)
    else:
        found = format or detect_format(data)
        report.lenient = found == "official"
        scene = read_official(data, report) if report.lenient else read_native(data, report, folder)
    return SceneCheck(None if report.failed else scene, found, tuple(report.problems))


def load_scene(path: str | os.PathLike[str], *, format: Format | None = None) -> Scene:
    """Read a scene file.

    Args:
        path: the file, at most 64 MB.
        format: `"native"`, `"official"` (the published demo format), or None to find out from its keys.

    Raises:
        SceneError: with every problem of the file. Lesser ones, which were mended, come as `SceneWarning`.
        OSError: the file cannot be opened.
    """
    return _settled(check_scene(path, format=format), os.fspath(path))


def scene_from_text(content: str | bytes, *, format: Format | None = None, source: str = "scene") -> Scene:
    """Read the text of a scene file; problems are raised and warned of as in `load_scene`, named after `source`."""
    return _settled(check_scene_text(content, format=format), source)


def save_scene(scene: Scene, path: str | os.PathLike[str], *, format: Format = "native") -> None:
    """Write a scene file, whole or not at all; `load_scene` gives the same scene back."""
    from instancediffusion.runs import write_atomic  # here, because only writing needs it

    write_atomic(path, scene_text(scene, format=format))


def scene_text(scene: Scene, *, format: Format = "native") -> str:
    """Return the text of a scene file."""
    if format == "native":
        return text.write(write_native(scene), per_line="instances")
    if format == "official":
        return text.write(write_official(scene), per_line="annos")
    raise ValueError(f"format is one of {', '.join(FORMATS)}, not {format!r}")


def _settled(check: SceneCheck, source: str) -> Scene:
    report = Report()
    for problem in check.problems:
        report.add(problem)
    report.settle(source, stacklevel=4)
    if check.scene is None:
        raise SceneError(check.problems, source)
    return check.scene


def detect_format(data: Any) -> Format:
    """Tell the native format from the published one by its keys; what is neither is taken as native."""
    if not isinstance(data, Mapping) or "version" in data or "prompt" in data:
        return "native"
    return "official" if "annos" in data or "caption" in data else "native"


def _is_coco(data: Any) -> bool:
    return isinstance(data, Mapping) and {"images", "annotations"} <= data.keys() and "instances" not in data
