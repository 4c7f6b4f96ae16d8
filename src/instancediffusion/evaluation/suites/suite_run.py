"""From scenes and a folder of pictures to the result of a suite; one bad picture never takes the others with it."""

from __future__ import annotations

import heapq
import json
import warnings
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from instancediffusion.datasets import Example, open_dataset, usable
from instancediffusion.datasets.dataset_format import format_of
from instancediffusion.errors import FailureWarning, InstanceDiffusionError, ModelError, SettingsError
from instancediffusion.rendering import render_overlay
from instancediffusion.scene import check_source
from instancediffusion.scene.limits import PICTURE_SUFFIXES

from .found_pictures import find_pictures, read_picture
from .models import Models
from .suite import Case, NotScoredError, Scored, Suite
from .suite_report import Failure, SuiteResult

Done = Callable[[int], None]

SHOWN = 12
"""Worst pictures on the page."""


def read_cases(suite: Suite, path: Path | None) -> Sequence[Case]:
    """Read the scenes of a suite.

    Args:
        suite: which may have a file of its own.
        path: a data set of any known format, a file of scenes, or a file of the suite's; None takes what the suite
            brings along.

    Raises:
        SettingsError: there is no such file, or the suite needs one.
        SceneError: it cannot be read.
    """
    found = suite.cases(path)
    if found is None and path is None:
        raise SettingsError(f"suite {suite.name}: name the scenes (--scenes): {suite.reads}")
    if found is None:
        assert path is not None
        found = list(_cases(path))
    if not found:
        raise SettingsError(f"{path}: holds no scene that can be used")
    return suite.requests(found)


def _cases(path: Path) -> Iterator[Case]:
    try:
        format_of(path)
    except SettingsError:
        if not path.is_file():
            raise
        check = check_source(path)
        if not check.scenes:
            raise
        for item in check.scenes:
            name = item.file_name or item.name
            yield Case(Example(item.scene, None, name, item.image_id), _stem(name))
        return
    for _, example in usable(open_dataset(path)):
        # What lies beside scene files of this program was made of them, and is no bound.
        kept = replace(example, image=None) if format_of(path).name == "native" else example
        yield Case(kept, _stem(example.file_name))


def _stem(name: str) -> str:
    path = Path(name)
    return (path.with_suffix("") if path.suffix.lower() in PICTURE_SUFFIXES else path).as_posix()


def run_suite(
    suite: Suite,
    cases: Sequence[Case],
    images: Path | Sequence[Sequence[Path]],
    models: Models,
    *,
    scenes: Path | None = None,
    real: Path | None = None,
    beside: Models | None = None,
    counter: Callable[[str, int], Done] | None = None,
    rows: Path | None = None,
) -> SuiteResult:
    """Score a folder of pictures.

    Args:
        suite: how.
        cases: the scenes.
        images: the folder (see `find_pictures` for the names), or the pictures of each case.
        models: of the suite.
        scenes: the file the cases are from.
        real: a folder of real pictures of the same names; None takes those that the data set has, if any.
        beside: models for the real pictures; None takes `models`.
        counter: takes the name and the total of some work, and returns a callback for the number of units done.
        rows: a file to write a line of JSON for each scored picture into.

    Raises:
        SettingsError: nothing can be scored; the message says why.
        ModelError: a model is missing, or fails at the first picture.
    """
    found = find_pictures(cases, images, suite.picture_of) if isinstance(images, Path) else images
    suite.prepare(cases, models, scenes)
    failures: list[Failure] = []
    worst: list[tuple[float, int, Path, int]] = []
    scored = []
    for number, path, row in _scored(suite, cases, found, models, failures, counter, "pictures"):
        scored.append(Scored(number, path.as_posix(), row, cases[number].group))
        heapq.heappush(worst, (suite.badness(row), -len(scored), path, number))
        if len(worst) > SHOWN:
            heapq.heappop(worst)
    if not scored:
        first = f"; the first: {failures[0].path}: {failures[0].reason}" if failures else ""
        raise SettingsError(f"suite {suite.name}: none of {len(failures)} pictures could be scored{first}")
    there = {item.case for item in scored}
    others = _real(suite, cases, there, beside or models, real, counter)
    made, bound = suite.compare(scored, others)
    unscored = len(failures)
    if suite.whole:
        missing = [f"{case.name}.png" for case, paths in zip(cases, found, strict=True) if not paths]
        failures += [Failure(name, "there is no picture of this name") for name in missing]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            message = f"{suite.name}: no picture {', '.join(missing[:3])}{more}; what they belong to is incomplete"
            warnings.warn(message, FailureWarning, stacklevel=2)
    if rows is not None:
        lines = [json.dumps({"picture": item.path, "scene": cases[item.case].name, **item.row}) for item in scored]
        rows.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    unit = "requests" if suite.whole else "scenes"
    facts: dict[str, Any] = {
        unit: len(cases),
        "pictures": len(scored),
        f"{unit} without a picture": sum(not paths for paths in found),
        "pictures without a score": unscored,
        "real pictures": len(others),
        "models": models.describe(suite.needs),
        **suite.notes(),
    }
    return SuiteResult(suite, made, bound, facts, failures, _shown(sorted(worst, reverse=True), cases))


def _scored(
    suite: Suite,
    cases: Sequence[Case],
    found: Sequence[Sequence[Path | Example]],
    models: Models,
    failures: list[Failure],
    counter: Callable[[str, int], Done] | None,
    what: str,
) -> Iterator[tuple[int, Any, Any]]:
    """Score picture by picture; what goes wrong with one is noted."""
    total = sum(map(len, found))
    done = counter(f"{suite.name}: {what}", total) if counter is not None and total else None
    for number, sources in enumerate(found):
        for source in sources:
            name = source.file_name if isinstance(source, Example) else source.as_posix()
            try:
                row = suite.score(cases[number], read_picture(source), models)
            except (ModelError, SettingsError):
                raise  # it concerns every picture
            except (InstanceDiffusionError, ArithmeticError, ValueError, RuntimeError, LookupError, OSError) as error:
                # One picture may break a network (memory, a size it cannot take) without breaking the others.
                reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
                own = isinstance(error, NotScoredError)
                failures.append(Failure(name, reason[0] if own else f"{type(error).__name__}: {reason[0]}"))
            else:
                yield number, source, row
            if done is not None:
                done(1)


def _real(
    suite: Suite,
    cases: Sequence[Case],
    there: Container[int],
    models: Models,
    real: Path | None,
    counter: Callable[[str, int], Done] | None,
) -> list[Scored]:
    """Score the real pictures of the cases that have a score; a reference takes all of a folder."""
    sources: list[list[Path | Example]]
    if real is not None and not real.is_dir():
        raise SettingsError(f"real: there is no folder {str(real)!r}")
    if real is not None and suite.reference:
        files = [path for path in sorted(real.rglob("*")) if path.suffix.lower() in PICTURE_SUFFIXES]
        sources, cases = [[path] for path in files], [cases[0]] * len(files)
    elif real is not None:
        beside = find_pictures(cases, real, suite.picture_of, real=True)
        sources = [list(paths[:1]) if k in there else [] for k, paths in enumerate(beside)]
    else:
        sources = [
            [case.example] if case.example.image is not None and k in there else [] for k, case in enumerate(cases)
        ]
    scored = _scored(suite, cases, sources, models, [], counter, "real pictures")
    return [Scored(number, str(number), row, cases[number].group) for number, _, row in scored]


def _shown(worst: Sequence[tuple[float, int, Path, int]], cases: Sequence[Case]) -> list[tuple[Image.Image, str]]:
    shown = []
    for bad, _, path, number in worst:
        picture = read_picture(path)
        scene = cases[number].example.scene
        size = (picture.height, picture.width)
        shown.append((picture, f"{path.name} ({bad:.2f})"))
        shown.append((render_overlay(scene, size, background=picture, legend=False), scene.prompt[:80]))
    return shown
