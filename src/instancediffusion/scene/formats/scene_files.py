"""Files of this program and of the published demo: a scene, a list of scenes, a picture that carries one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from .. import json_text
from ..checks import is_array
from ..model import Scene
from ..problem_report import Report, child
from .foreign.entries import NamedScene, ReadOptions, scene_name
from .native import SCENE_KEYS, read_native, write_native
from .official import read_official, write_official
from .scene_format import SceneFormat, format_of, register


def is_scene_list(value: Any) -> bool:
    """Whether JSON data is a list of scenes, of either format."""
    if not is_array(value):
        return False
    first = next((item for item in value if isinstance(item, Mapping)), None)
    return not value if first is None else any(key in first for key in ("prompt", "instances", "annos"))


def _is_native(value: Any) -> bool:
    if is_array(value):
        return is_scene_list(value)
    if not isinstance(value, Mapping):
        return True  # the reader says that it is no object
    known = [key for key in value if key in (*SCENE_KEYS, "caption", "annos")]
    return _has_native_keys(value) or 2 * len(known) > len(value)


def _is_official(value: Any) -> bool:
    if not isinstance(value, Mapping) or _has_native_keys(value):
        return False
    return "annos" in value or ("caption" in value and "width" in value)


def _has_native_keys(value: Mapping[str, Any]) -> bool:
    return "prompt" in value or "instances" in value or value.get("version") == 1 or not value


def _read(content: Any, report: Report, options: ReadOptions, *, official: bool) -> list[NamedScene]:
    """Read a scene, or a list of them: one that cannot be used is left out."""
    stem = Path(options.name).stem if options.name not in ("", "-") else "scene"
    if not isinstance(content, list) or not content:
        scene = _read_one(content, official, report, options.folder)
        return [] if scene is None else [NamedScene(scene_name(stem), scene)]
    scenes = []
    for index, data in enumerate(content):
        entry = Report()
        kind = format_of(data, "json")
        scene = _read_one(data, kind is OFFICIAL, entry, options.folder)
        for problem in entry.problems:
            where = child("$", index) + problem.path.removeprefix("$")
            left_out = ": left out" if problem.severity == "error" else ""
            report.warn(where, problem.message + left_out, problem.fix)
        if scene is not None and not entry.failed:
            name = data.get("name")
            name = scene_name(name) if isinstance(name, str) and name.strip() else f"{scene_name(stem)}_{index + 1}"
            scenes.append(NamedScene(name, scene, index + 1))
    return scenes


def _read_one(data: Any, official: bool, report: Report, folder: Path | None) -> Scene | None:
    report.lenient = official
    return read_official(data, report) if official else read_native(data, report, folder)


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


NATIVE = register(
    SceneFormat(
        "native",
        "a scene of this program",
        recognise=_is_native,
        read=partial(_read, official=False),
        lenient=False,
        write=lambda scene: json_text.write(write_native(scene), per_line="instances"),
    )
)
OFFICIAL = register(
    SceneFormat(
        "official",
        "a published demo file",
        recognise=_is_official,
        read=partial(_read, official=True),
        write=lambda scene: json_text.write(write_official(scene), per_line="annos"),
    )
)
PICTURE = register(
    SceneFormat(
        "picture",
        "a picture made by this program",
        "picture",
        recognise=lambda notes: "scene" in notes,
        read=_read_picture,
        lenient=False,
    )
)
