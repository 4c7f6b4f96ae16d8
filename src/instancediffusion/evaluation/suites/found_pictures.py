"""The pictures of cases in a folder, found by their names."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from instancediffusion.datasets import Example
from instancediffusion.errors import SceneError, SettingsError
from instancediffusion.scene import Scene
from instancediffusion.scene.limits import PICTURE_SUFFIXES

from .suite import Case, NotScoredError


def find_pictures(
    cases: Sequence[Case],
    folder: Path,
    named: Callable[[Path], str | None] = lambda _: None,
    *,
    real: bool = False,
) -> list[list[Path]]:
    """Find the pictures of each case: `NAME.png`, and further samples `NAME_0.png`, `NAME_1.png`, ... by any suffix.

    NAME is that of the case, with its folders or without them. What `generate` writes (`NAME_SEED.png`) is found so.

    Args:
        cases: the cases.
        folder: where their pictures are, in folders of it, too.
        named: the name of the case that a file is a picture of, for suites with names of their own.
        real: look for real pictures, which may be called by `Case.real`, too.

    Returns:
        For each case its pictures, by name; empty if there is none.

    Raises:
        SettingsError: the folder is not there, or none of its files is a picture of a case.
    """
    if not folder.is_dir():
        raise SettingsError(f"images: there is no folder {str(folder)!r}")
    exact: dict[str, list[Path]] = {}
    samples: dict[str, list[Path]] = {}
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            if path.suffix.lower() not in PICTURE_SUFFIXES or name.startswith("."):
                continue
            own = named(path)
            if own is not None:
                samples.setdefault(own, []).append(path)
                continue
            whole = path.relative_to(folder).with_suffix("").as_posix()
            for key in dict.fromkeys((whole, path.stem)):
                exact.setdefault(key, []).append(path)
                if found := re.fullmatch(r"(.+)_\d+", key, re.DOTALL):
                    samples.setdefault(found[1], []).append(path)
    names_of_cases = {case.name for case in cases} | {case.name.rpartition("/")[2] for case in cases}
    found_pictures = [_of(case.name, exact, samples, names_of_cases) for case in cases]
    if real:
        found_pictures = [
            paths or (_of(case.real, exact, samples, names_of_cases) if case.real else [])
            for case, paths in zip(cases, found_pictures, strict=True)
        ]
    if not any(found_pictures):
        some = ", ".join(f"{case.name}.png" for case in cases[:3])
        raise SettingsError(f"images: {folder} holds no picture of a scene; names such as {some} were expected")
    return found_pictures


def _of(name: str, exact: dict[str, list[Path]], samples: dict[str, list[Path]], taken: set[str]) -> list[Path]:
    for key in dict.fromkeys((name, name.rpartition("/")[2])):
        found = exact.get(key, [])[:1]
        # A picture whose whole name is that of another case is no sample of this one.
        found = found + [path for path in samples.get(key, []) if path not in found and path.stem not in taken - {name}]
        if found:
            return found
    return []


def read_picture(source: Path | Example) -> Image.Image:
    """Read a picture, upright and in RGB.

    Raises:
        NotScoredError: it cannot be read.
    """
    example = source if isinstance(source, Example) else Example(_BLANK, source, source.name)
    try:
        return Image.fromarray(np.ascontiguousarray(example.pixels()))
    except SceneError as error:
        raise NotScoredError("; ".join(problem.message for problem in error.problems)) from error


_BLANK = Scene("a picture", (), 16, 16)
