"""Scenes as they are given to a program: files of any format, folders of them, standard input, prompts."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from instancediffusion.choices import STANDARD
from instancediffusion.errors import Problem, SceneError, SettingsError
from instancediffusion.scene import NamedScene, ReadOptions, Scene, SourceCheck, check_source, check_source_bytes
from instancediffusion.scene.emphasis import NOT_UNDERSTOOD
from instancediffusion.scene.formats.foreign.entries import scene_name, unique_names

_SUFFIXES = (".json", ".jsonl", ".txt", ".xml", ".png")
_FILE_LIKE = re.compile(r"\.(json|jsonl|txt|xml|png|jpe?g|webp|toml|ya?ml|safetensors|ckpt|pth|csv)\Z", re.IGNORECASE)


def looks_like_file(text: str) -> bool:
    """Whether a text ends like the name of a file that people would give here."""
    return _FILE_LIKE.search(text) is not None


@dataclass(frozen=True)
class Reading:
    """How files are to be read; see `instancediffusion.scene.check_source`.

    Attributes:
        format: the format, or None to find it out.
        captions: the captions file that goes with a COCO file.
        image_ids: pictures of a COCO file.
        labels: names of classes that are numbers.
        canvas: (width, height) where a file does not state it.
        boxes: the order of a box's numbers.
        units: what lengths are counted in.
    """

    format: str | None = None
    captions: Path | None = None
    image_ids: tuple[str, ...] = ()
    labels: Sequence[str] | None = None
    canvas: tuple[int, int] | None = None
    boxes: str | None = None
    units: str | None = None

    def check(self, path: Path) -> SourceCheck:
        """Read a file, or standard input."""
        options = ReadOptions(self.labels, self.canvas, self.units, self.boxes)
        given: dict[str, Any] = {
            "format": self.format,
            "captions": self.captions,
            "image_ids": set(self.image_ids) or None,
        }
        if str(path) == STANDARD:
            content = sys.stdin.buffer.read()
            return check_source_bytes(content, options=replace(options, name="stdin"), **given)
        return check_source(path, options=options, **given)


@dataclass(frozen=True)
class Input:
    """A scene that was asked for.

    Attributes:
        name: a name for it, unique among the inputs.
        scene: the scene.
        source: the file it is from; empty for a prompt.
        seeds: seeds it was sampled with, if it is from a picture.
        settings: settings it was sampled with, likewise.
        model: what it was drawn by, likewise.
    """

    name: str
    scene: Scene
    source: str = ""
    seeds: tuple[int, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)


@dataclass
class Inputs:
    """What became of all that was given.

    Attributes:
        found: the scenes that can be used.
        problems: of the sources that gave none.
        warnings: of the sources that gave some, and what is only doubtful.
    """

    found: list[Input] = field(default_factory=list)
    problems: list[tuple[str, Problem]] = field(default_factory=list)
    warnings: list[tuple[str, Problem]] = field(default_factory=list)


def read_inputs(arguments: Iterable[str], reading: Reading, size: tuple[int, int]) -> Inputs:
    """Read everything that was given; what cannot be used leaves the rest.

    Args:
        arguments: paths of files and folders, `-`, or prompts.
        reading: how files are read.
        size: (width, height) of the canvas of a prompt.

    Raises:
        SettingsError: a folder holds no file that could be a scene.
    """
    inputs, seen = Inputs(), set[str]()
    for argument in arguments:
        if _is_prompt(argument):
            _add_prompt(inputs, argument, size)
            continue
        for path, listed in _files(argument):
            identity = str(path) if str(path) == STANDARD else str(path.resolve())
            if identity not in seen:
                seen.add(identity)
                _add_file(inputs, path, reading, listed)
    inputs.found = _named(_merged(inputs.found))
    return inputs


def _is_prompt(argument: str) -> bool:
    """Whether an argument is words rather than a path: nothing of that name is there, and it does not look like one."""
    if argument == STANDARD or os.path.lexists(argument):
        return False
    if looks_like_file(argument.strip()):
        return False
    looks_like_path = "/" in argument or "\\" in argument
    return not (looks_like_path and not re.search(r"\s", argument))


def _files(argument: str) -> Iterator[tuple[Path, bool]]:
    """The files of a path; of a folder those that may hold scenes, which may also hold none."""
    path = Path(argument)
    if not path.is_dir():
        yield path, False
        return
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES and p.is_file() and p.name[0] != ".")
    if not found:
        raise SettingsError(f"{argument} holds no file that could be a scene ({', '.join(_SUFFIXES)})")
    yield from ((p, True) for p in found)


def _add_file(inputs: Inputs, path: Path, reading: Reading, listed: bool) -> None:
    label = "standard input" if str(path) == STANDARD else str(path)
    try:
        check = reading.check(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        inputs.problems.append((label, Problem("$", reason, "correct the path, or quote a prompt of several words")))
        return
    if listed and not check.format and not any("is not JSON" in problem.message for problem in check.problems):
        return  # folders hold other files, too; a broken scene among them is reported
    for problem in check.problems:
        if NOT_UNDERSTOOD in problem.message:
            continue  # the pipeline warns of it in the texts it reads
        if check.scenes or problem.severity == "warning":
            inputs.warnings.append((label, problem))
        else:
            inputs.problems.append((label, problem))
    inputs.found += [_input(item, label) for item in check.scenes]


def _input(item: NamedScene, label: str) -> Input:
    seeds = () if item.seed is None else (item.seed,)
    return Input(item.name, item.scene, label, seeds, dict(item.settings), dict(item.model))


def _add_prompt(inputs: Inputs, prompt: str, size: tuple[int, int]) -> None:
    try:
        scene = Scene(prompt, (), *size)
    except SceneError as error:
        inputs.problems += [("prompt", problem) for problem in error.problems]
        return
    words = "_".join(re.findall(r"\w+", prompt.lower()))
    while len(words.encode()) > 60:
        words = words.rpartition("_")[0] or words[:-1]
    inputs.found.append(Input(words or "prompt", scene))


def _merged(inputs: Sequence[Input]) -> list[Input]:
    """Pictures of one scene, the same settings and the same model are one input of several seeds."""
    found: list[Input] = []
    indices: dict[str, int] = {}
    for item in inputs:
        before = found[indices[item.name]] if item.seeds and item.name in indices else None
        if (
            before is not None
            and before.seeds
            and all(getattr(before, name) == getattr(item, name) for name in ("scene", "settings", "model"))
        ):
            found[indices[item.name]] = replace(before, seeds=tuple(dict.fromkeys(before.seeds + item.seeds)))
            continue
        indices[item.name] = len(found)
        found.append(item)
    return found


def _named(inputs: Sequence[Input]) -> list[Input]:
    """Names of their own: those of the same name are distinguished by the folder they are in, then by a number."""
    counts = Counter(item.name.casefold() for item in inputs)
    names = []
    for item in inputs:
        shared = counts[item.name.casefold()] > 1 and item.source
        folder = scene_name(Path(item.source).resolve().parent.name) if shared else ""
        names.append(f"{folder}_{item.name}" if folder else item.name)
    return [replace(item, name=name) for item, name in zip(inputs, unique_names(names), strict=True)]
