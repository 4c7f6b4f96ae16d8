"""Scene files: find out the format, read and check, write."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from instancediffusion.errors import Problem, SceneError

from .formats.foreign.entries import ReadOptions
from .formats.scene_format import FORMATS, READ, written
from .model import Scene
from .sources import SourceCheck, check_source, check_source_bytes, settle


@dataclass(frozen=True)
class SceneCheck:
    """What became of reading a scene file.

    Attributes:
        scene: the scene, or None if any problem is an error.
        format: the format the file was read in, a key of `scene.READ`; `"native"` if it was not recognised.
        problems: every problem, errors and warnings, in the order of the file.
    """

    scene: Scene | None
    format: str
    problems: tuple[Problem, ...]


def check_scene(path: str | os.PathLike[str], *, format: str | None = None) -> SceneCheck:
    """Read a file that holds one scene and collect its problems instead of raising or warning.

    Args:
        path: the file, at most 64 MB.
        format: the format to read it in, a key of `scene.READ`; found out from its content if None.

    Raises:
        OSError: the file cannot be opened.
    """
    return _only(check_source(path, format=format))


def check_scene_text(
    content: str | bytes,
    *,
    format: str | None = None,
    folder: Path | None = None,
) -> SceneCheck:
    """Read the text of a scene file and collect its problems, as `check_scene` does.

    Args:
        content: the text, at most 64 MB.
        format: the format to read it in; found out from its content if None.
        folder: where mask files named in the scene lie; without it none is read.
    """
    encoded = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return _only(check_source_bytes(encoded, format=format, options=ReadOptions(folder=folder)))


def _only(check: SourceCheck) -> SceneCheck:
    """The one scene of a file; several are an error."""
    found = check.format or "native"
    if len(check.scenes) > 1:
        fix = "read them with load_scenes, or `instancediffusion scene convert`"
        problem = Problem("$", f"is {READ[found]} of {len(check.scenes)} scenes", fix)
        return SceneCheck(None, found, (*check.problems, problem))
    return SceneCheck(check.scenes[0].scene if check.scenes else None, found, check.problems)


def load_scene(path: str | os.PathLike[str], *, format: str | None = None) -> Scene:
    """Read a file that holds one scene.

    Args:
        path: the file, at most 64 MB.
        format: `"native"`, `"official"` (the published demo format) or another key of `scene.READ`; None finds out
            from the content.

    Raises:
        SceneError: with every problem of the file. Lesser ones, which were mended, come as `SceneWarning`.
        OSError: the file cannot be opened.
    """
    return _settled(check_scene(path, format=format), os.fspath(path))


def scene_from_text(content: str | bytes, *, format: str | None = None, source: str = "scene") -> Scene:
    """Read the text of a scene file; problems are raised and warned of as in `load_scene`, named after `source`."""
    return _settled(check_scene_text(content, format=format), source)


def save_scene(scene: Scene, path: str | os.PathLike[str], *, format: str = "native") -> None:
    """Write a scene file, whole or not at all; `load_scene` gives the same scene back."""
    from instancediffusion.runs import write_atomic  # here, because only writing needs it

    write_atomic(path, scene_text(scene, format=format))


def scene_text(scene: Scene, *, format: str = "native") -> str:
    """Return the text of a scene file, in a format that is written: native, official, or one of your own.

    Raises:
        ValueError: the format is not known, or not written.
    """
    write = FORMATS[format].write if format in FORMATS else None
    if write is None:
        raise ValueError(f"format is one of {', '.join(written())}, not {format!r}")
    return write(scene)


def _settled(check: SceneCheck, source: str) -> Scene:
    settle(check.problems, source, stacklevel=4)
    if check.scene is None:
        raise SceneError(check.problems, source)
    return check.scene


def examples_folder() -> Path | None:
    """The folder of example scenes: in the installed package, or in the source tree it is run from."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "examples", package.parent.parent / "examples"):
        if (folder / "demo.json").is_file():
            return folder
    return None
