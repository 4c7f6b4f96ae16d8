"""The course of a bench: read the scenes, generate the pictures that are missing, score them by each suite, report."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from instancediffusion.datasets.file_access import Names
from instancediffusion.errors import FailureWarning, InstanceDiffusionError, SettingsError
from instancediffusion.runs import ItemState, RunConflictError, RunDirectory, fingerprint, write_atomic
from instancediffusion.scene import Scene, without_order

from ..gallery import Counter, make_pictures
from .clip import CLIP, FEATURES, Clip, Features
from .detectors import DETECTOR, FileDetector, TransformersDetector
from .found_pictures import find_pictures
from .inception import Inception, is_inception
from .models import Models
from .phrase_models import SEGMENTER, BoxNetwork, PhraseNetwork
from .suite import Case, NotScoredError, Suite, suite_of
from .suite_report import SuiteResult, to_html, to_markdown, to_report
from .suite_run import read_cases, run_suite


@dataclass(frozen=True)
class BenchOptions:
    """What is to be scored, and by what.

    Attributes:
        suites: names.
        scenes: the file or data set of the scenes; None for suites that bring their own.
        images: the folder of the pictures; None makes them.
        real: real pictures.
        detections: what another program found in the pictures.
        real_detections: what it found in the real ones.
        names: role -> model on the hub or folder, of those that were named.
        same_seed: make both orders of a pair from one seed.
    """

    suites: tuple[str, ...]
    scenes: Path | None = None
    images: Path | None = None
    real: Path | None = None
    detections: Path | None = None
    real_detections: Path | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    same_seed: bool = False


@dataclass(frozen=True)
class _Asked:
    scene: Scene
    seed: int


@dataclass
class Maker:
    """Makes the pictures of scenes, each from the noise of its own number.

    Attributes:
        decisive: JSON-like values of all that pictures depend on beside the scene.
        settings: the `GenerationSettings`.
        open_pipeline: loads the model; called only if a picture is missing.
        batch_size: pictures made together.
        replace: make pictures again that are there with other settings.
        order: give the depth order.
    """

    decisive: Mapping[str, Any]
    settings: Any
    open_pipeline: Callable[[], Any]
    batch_size: int
    replace: bool = False
    order: bool = True

    def make(self, folder: Path, cases: Sequence[Case], progress: Callable[[str, int], Counter]) -> list[list[Path]]:
        """Make what is missing; returns the picture of each case, none where the model failed."""
        run, names = RunDirectory(folder, "bench"), Names()
        files = [f"pictures/{names.free(case.name, '.png', f'{n:06d}')}" for n, case in enumerate(cases)]
        scenes = [case.example.scene.to_dict() for case in cases]
        marks = [fingerprint(dict(self.decisive), *pair) for pair in zip(scenes, seeds_of(cases), strict=True)]
        states = [run.state(file, mark) for file, mark in zip(files, marks, strict=True)]
        if ItemState.DIFFERENT in states and not self.replace:
            raise RunConflictError(
                f"{folder} holds pictures of other scenes, of another model or of other settings; choose another "
                "folder, or add --overwrite"
            )
        missing = [n for n, state in enumerate(states) if state is not ItemState.COMPLETE]
        counter = progress("pictures", len(missing))
        pipeline = self.open_pipeline() if missing else None
        for start in range(0, len(missing), self.batch_size):
            chunk = missing[start : start + self.batch_size]
            for n, image in self._images(pipeline, cases, chunk):
                buffer = io.BytesIO()
                image.save(buffer, "PNG")
                run.put(files[n], marks[n], {files[n]: buffer.getvalue()}, replace=True)
            counter.add(len(chunk))
        run.settle()
        return [[path] if run.item(file) and (path := run.local(file)).is_file() else [] for file in files]

    def _images(self, pipeline: Any, cases: Sequence[Case], chunk: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """Make pictures together; if that fails, one by one, so that the scene at fault takes no other with it."""
        try:
            seeds = seeds_of(cases)
            asked = [_Asked(self._given(cases[n].example.scene), seeds[n]) for n in chunk]
            made = make_pictures(pipeline, asked, self.settings, len(chunk), lambda _: None)
        except InstanceDiffusionError as error:
            if len(chunk) == 1:
                warnings.warn(f"{cases[chunk[0]].name}: {error}", FailureWarning, stacklevel=2)
                return
            for n in chunk:
                yield from self._images(pipeline, cases, [n])
        else:
            yield from zip(chunk, made.images, strict=True)

    def _given(self, scene: Scene) -> Scene:
        return scene if self.order else without_order(scene)


def seeds_of(cases: Sequence[Case]) -> list[int]:
    """Return the seed that the picture of each case is made from: its own, else its number."""
    return [number if case.seed is None else case.seed for number, case in enumerate(cases)]


class _Blind:
    """Stands for a program that was not run on the real pictures."""

    labels: Sequence[str] = ()

    def __call__(self, image: Any, name: str) -> list[Any]:  # noqa: ARG002
        raise NotScoredError("the detections are of the pictures, not of the real ones (--real-detections)")


def models_beside(options: BenchOptions, models: Models) -> Models:
    """Return the models for real pictures: another program's detections in generated ones do not apply to them."""
    if options.detections is None:
        return models
    seen = (
        _Blind() if options.real_detections is None else FileDetector(options.real_detections, _numbers(options.scenes))
    )
    return Models({**models.opened, "detector": seen}, models.openers)


DEFAULTS = {
    "detector": DETECTOR,
    "phrases": "IDEA-Research/grounding-dino-tiny",
    "segmenter": SEGMENTER,
    "clip": CLIP,
    "features": FEATURES,
    "depth": "depth-anything/Depth-Anything-V2-Small-hf",
}
"""Role of a model -> the one that is taken where neither the command nor the suite names one."""

Opener = Callable[[str, str], Any]
"""Opens the model of a role by its name, on a device."""

_OPENERS: Mapping[str, Opener] = {
    "detector": TransformersDetector,
    "phrases": lambda name, device: PhraseNetwork(name, device, surest=True),
    "segmenter": BoxNetwork,
    "clip": Clip,
    "features": lambda name, device: (Inception if is_inception(name) else Features)(name, device),
}


def models_of(
    suite: Suite,
    options: BenchOptions,
    device: str,
    opened: dict[tuple[str, str], Any],
    openers: Mapping[str, Opener] | None = None,
) -> Models:
    """Say how the models are opened that a suite may ask for.

    Args:
        suite: may name models of its own.
        options: may name others.
        device: where they run.
        opened: by role and name, what is open already; is added to.
        openers: more roles, and what opens their models.
    """
    all_openers = {**_OPENERS, **(openers or {})}
    if options.detections is not None and "detector" in options.names:
        raise SettingsError("--detector or --detections: one of them says what is in the pictures")

    def open_(role: str) -> Any:
        name = options.names.get(role) or suite.defaults.get(role) or DEFAULTS.get(role, "")
        if role == "detector" and options.detections is not None:
            return FileDetector(options.detections, _numbers(options.scenes))
        if (role, name) not in opened:
            opened[role, name] = all_openers[role](name, device)
        return opened[role, name]

    # A model that has no default is only there if it was named.
    roles = [role for role in all_openers if role in DEFAULTS or role in options.names]
    return Models(openers={role: partial(open_, role) for role in roles})


def _numbers(scenes: Path | None) -> dict[int, str]:
    """The category numbers of the annotations, which a results file counts in."""
    from instancediffusion.datasets import open_dataset

    found = open_dataset(scenes).categories if scenes is not None else {}
    numbers = {number: name for number, name in found.items() if isinstance(number, int)}
    if not numbers:
        raise SettingsError(
            "--detections: --scenes has to be an annotations file with numbered categories, such as COCO"
        )
    return numbers


def run_bench(
    options: BenchOptions,
    output: Path,
    device: str,
    maker: Callable[[], Maker],
    progress: Callable[[str, int], Counter],
    facts: Mapping[str, Any],
    openers: Mapping[str, Opener] | None = None,
) -> Iterator[Path]:
    """Score by each suite; yields the files as they are written.

    Args:
        options: what is to be scored, and by what.
        output: folder for the report, and for the pictures if they are made.
        device: where the suites' models run.
        maker: makes pictures where `options.images` is None.
        progress: makes a counter of some work.
        facts: what the report says of the model.
        openers: opens models of roles that this package has nothing for, such as "depth" and "judge".
    """
    suites = [suite_of(name) for name in options.suites]
    results, opened = list[SuiteResult](), dict[tuple[str, str], Any]()
    source: dict[str, Any] = {
        "images": str(options.images) if options.images else "made here",
        "scenes": str(options.scenes or "built in"),
    }
    output.mkdir(parents=True, exist_ok=True)
    making = maker() if options.images is None else None
    if making is not None:
        source |= {**facts, **making.decisive}
    for suite in suites:
        suite.same_seed = options.same_seed
        cases = read_cases(suite, options.scenes)
        folder = output if options.scenes is not None else output / suite.name
        images = making.make(folder, cases, progress) if making is not None else _found(suite, cases, options)
        models = models_of(suite, options, device, opened, openers)
        result = _result(suite, cases, images, models, options, output, progress)
        if making is not None:
            result = replace(result, facts={**result.facts, "seeds": _seeds_text(cases)})
        results.append(result)
        yield output / f"{suite.name}_pictures.jsonl"
        to_report(results, source).save(output / "report.json")
        write_atomic(output / "report.md", to_markdown(results, source))
        write_atomic(output / "report.html", to_html(results, source))
    yield from (output / name for name in ("report.json", "report.md", "report.html"))


def _result(
    suite: Suite,
    cases: Sequence[Case],
    images: Sequence[Sequence[Path]],
    models: Models,
    options: BenchOptions,
    output: Path,
    progress: Callable[[str, int], Counter],
) -> SuiteResult:
    return run_suite(
        suite,
        cases,
        images,
        models,
        scenes=options.scenes,
        real=options.real,
        beside=models_beside(options, models),
        counter=lambda what, total: progress(what, total).add,
        rows=output / f"{suite.name}_pictures.jsonl",
    )


def _seeds_text(cases: Sequence[Case]) -> str:
    seeds = seeds_of(cases)
    different = len(set(seeds))
    if different == len(seeds):
        return "each picture its own"
    return f"{different} for {len(seeds)} pictures: those of both orders of a pair start from the same noise"


def _found(suite: Suite, cases: Sequence[Case], options: BenchOptions) -> list[list[Path]]:
    assert options.images is not None, "pictures are made where there is no folder of them"
    return find_pictures(cases, options.images, suite.picture_of)
