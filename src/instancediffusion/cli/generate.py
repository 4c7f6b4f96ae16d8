"""`instancediffusion generate`: scenes and prompts into pictures."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from instancediffusion.additions import Additions
from instancediffusion.choices import RETIRED, STANDARD, precision_fact
from instancediffusion.errors import Problem, SettingsError

from .additions_options import additions_options
from .click_types import Output, SceneSource
from .libraries import quieten_libraries, uncollected, unloaded
from .model_options import engine_options, model_options
from .progress import Reporter, echo
from .reading_options import reading_options
from .settings_options import settings_of, settings_options

if TYPE_CHECKING:
    from instancediffusion.pipeline import GenerationSettings
    from instancediffusion.pipeline.picture_folder import Picture
    from instancediffusion.pipeline.plan import Job
    from instancediffusion.ray_pool import RayOptions
    from instancediffusion.scene.inputs import Input, Inputs, Reading

_COUNT = click.IntRange(min=1)
_SEED = click.IntRange(0, 2**64 - 1)


@click.command()
@click.argument("scenes", nargs=-1, required=True, metavar="SCENE...", type=SceneSource())
@click.option(
    "-o",
    "--output",
    default=Path("pictures"),
    show_default=True,
    type=Output(allow_dash=True),
    help="Folder to fill; one picture may also go to a file.png or, as -, to standard output.",
)
@click.option("--seed", "seeds", type=_SEED, multiple=True, help="Seed; repeatable. Default: the picture's own, or 0.")
@click.option("--num-images", type=_COUNT, help="Pictures of each scene, with seeds counting up from --seed.")
@settings_options()
@click.option("--complete-captions/--no-complete-captions", default=None, hidden=True, help="Does nothing any more.")
@click.option("--place-objects/--no-place-objects", default=None, hidden=True, help="Does nothing any more.")
@model_options
@click.option("--refiner", help="Folder or hub id of an image-to-image model that goes over each picture.")
@click.option("--font", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Typeface of the overlays.")
@click.option("--batch-size", type=_COUNT, default=4, show_default=True, help="Pictures made together.")
@click.option("--overwrite", is_flag=True, help="Replace pictures that are there with other settings.")
@additions_options
@reading_options
@engine_options
@click.option("--json", "as_json", is_flag=True, help="Print what was made, and what was not, as JSON.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors and warnings.")
def generate(
    scenes: tuple[str, ...],
    output: Path,
    seeds: tuple[int, ...],
    num_images: int | None,
    model: str,
    adapter: str | None,
    variant: str | None,
    dtype: str,
    device: str | None,
    refiner: str | None,
    refiner_strength: float | None,
    font: Path | None,
    batch_size: int,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    additions: Additions,
    reading: Reading,
    engine: RayOptions | None,
    **options: Any,
) -> None:
    """Turn SCENEs into pictures.

    A SCENE is a file (a scene, or one of another program: COCO, LabelMe, YOLO ...; `scene convert --help` lists them),
    a picture made here, which is made again, a folder of files, - for standard input, or a prompt in quotes.

    The folder gets <scene>_<seed>.png for each picture, <scene>_overlay.png for each scene, and manifest.json. The
    same command again makes only what is missing. A scene or picture that fails leaves the others; the exit code says
    it. Scenes with the same seed start from the same noise, so a scene that grows from file to file keeps its
    composition.

    Settings left out are those the model is best run with.
    """
    single = str(output) == STANDARD or output.suffix.lower() == ".png"
    if not single and output.exists() and not output.is_dir():
        raise click.BadParameter(f"{output} is a file; name a folder, or a .png for one picture", param_hint="--output")
    if len(seeds) > 1 and num_images is not None:
        raise SettingsError("seed: several seeds and --num-images are given; leave one of them out")
    if refiner is None and refiner_strength:
        raise SettingsError("refiner_strength: no refiner is given; add --refiner, or leave the strength out")
    options["refiner_strength"] = 0.35 if refiner is not None and refiner_strength is None else refiner_strength
    for name, reason in RETIRED.items():
        if options.pop(name) is not None:
            echo(f"warning: {name}: {reason}; leave it out", err=True)
    inputs = _read(scenes, reading, options)
    outcome = Outcome(unread=len({source for source, _ in inputs.problems}))
    if inputs.found:
        run = _Run(
            inputs.found, seeds, num_images, model, adapter, variant, dtype, device, refiner, font, options, additions,
            engine,
        )  # fmt: skip
        if single:
            _one_picture(run, outcome, output, overwrite)
        else:
            say = Reporter(quiet or as_json)
            run.into(output, outcome, say, batch_size=batch_size, overwrite=overwrite)
    if as_json:
        echo(json.dumps(outcome.pictures, indent=2))
    if outcome.exit_code:
        raise click.exceptions.Exit(outcome.exit_code)


def _read(scenes: Sequence[str], reading: Reading, options: Mapping[str, Any]) -> Inputs:
    """Read what was given, and say what cannot be used; what was refined needs a refiner again."""
    from instancediffusion.scene.inputs import read_inputs

    inputs = read_inputs(scenes, reading, _prompt_canvas(options))
    if options["refiner_strength"] is None:
        for item in [item for item in inputs.found if item.settings.get("refiner_strength")]:
            name = item.model.get("refiner", "a refiner")
            fix = "add --refiner, or --refiner-strength 0 to leave that out"
            inputs.found.remove(item)
            inputs.problems.append((item.source, Problem("$", f"was refined by {name}", fix)))
    for source, problem in inputs.warnings:
        echo(f"warning: {source}: {problem}", err=True)
    for source, problem in inputs.problems:
        echo(f"error: {source}: {problem}", err=True)
    return inputs


@dataclass
class Outcome:
    """What became of everything that was asked for.

    Attributes:
        pictures: for each picture its `path`, `scene`, `seed` and `state` (made, there, failed or taken).
        unread: sources that could not be read.
    """

    unread: int = 0
    pictures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 if all is well, 1 if a picture is missing, 2 if only scenes could not be read."""
        if any(picture["state"] in ("failed", "taken") for picture in self.pictures):
            return 1
        return 2 if self.unread else 0

    def add(self, state: str, picture: Picture, path: Path, reason: str = "") -> None:
        """Note a picture."""
        found = {"path": str(path), "scene": picture.name, "seed": picture.seed, "state": state}
        self.pictures.append(found | ({"reason": reason} if reason else {}))


@dataclass(frozen=True)
class _Run:
    """Everything that decides the pictures of one command."""

    inputs: Sequence[Input]
    seeds: tuple[int, ...]
    num_images: int | None
    model: str
    adapter: str | None
    variant: str | None
    dtype: str
    device: str | None
    refiner: str | None
    font: Path | None
    options: Mapping[str, Any]
    additions: Additions
    engine: RayOptions | None = None

    def into(self, output: Path, outcome: Outcome, say: Reporter, *, batch_size: int, overwrite: bool) -> None:
        """Make what is missing in a folder. The model is opened before anything is written."""
        with uncollected(), unloaded() if self._is_plain else nullcontext():
            quieten_libraries(bars=say.watched)
            from instancediffusion.checkpoints import local_adapter, model_defaults, weights_sha256
            from instancediffusion.pipeline.loading import local_model
            from instancediffusion.pipeline.plan import Plan

        folder = local_model(self.model, variant=self.variant)
        adapter = None if self.adapter is None else local_adapter(self.adapter, variant=self.variant)
        defaults = model_defaults(folder)
        facts: dict[str, Any] = {"weights": weights_sha256(folder), "dtype": self.dtype, **precision_fact(self.device)}
        facts |= {"adapter": weights_sha256(adapter)} if adapter is not None else {}
        settings = partial(_settings, self.options)
        plan = Plan(self.inputs, settings, self.additions.with_model(folder), self.seeds, self.num_images)
        for doubt in plan.doubts(facts):
            echo(f"warning: {doubt}", err=True)
        jobs = plan.jobs(output, facts, defaults, refiner=self.refiner, overwrite=overwrite)
        self._tell(jobs, outcome, say)
        total = sum(len(job.pending) for job in jobs)
        if total and self.engine is not None:
            self._spread(self.engine, self._opener(folder, adapter, jobs), jobs, outcome, say, batch_size=batch_size)
            total = 0
        pipeline, record = self._open(folder, adapter, jobs) if total else (None, {})
        for job in jobs:
            refused = {picture.name for picture, _ in job.taken}
            for name, scene in {picture.name: picture.scene for picture in job.pictures}.items():
                if name not in refused:
                    say.wrote(job.folder.put_overlay(name, scene, self.font))
            job.folder.run.settle()
            if job.pending and total:
                self._make(pipeline, job, outcome, say, batch_size=batch_size, record=record)

    @property
    def _is_plain(self) -> bool:
        """Whether the model in the package draws new scenes with its own sampler by torch; nothing is added to it."""
        own = self.model == "mini" and self.adapter is None and self.refiner is None and self.engine is None
        own = own and not (self.device or "").startswith("openvino")
        chosen = any(item.model or item.settings for item in self.inputs) or self.options.get("scheduler") is not None
        return own and not chosen and self.additions == Additions()

    @staticmethod
    def _tell(jobs: Sequence[Job], outcome: Outcome, say: Reporter) -> None:
        """Say which pictures are there, and whose place is taken."""
        count = sum(len(job.pictures) for job in jobs)
        there, conflicts = 0, []
        for job in jobs:
            conflicts += [error for _, error in job.taken]
            open_keys = {picture.key for picture in job.pending} | {picture.key for picture, _ in job.taken}
            for picture in job.pictures:
                if picture.key not in open_keys:
                    there += 1
                    outcome.add("there", picture, job.folder.run.path / f"{picture.key}.png")
            for picture, error in job.taken:
                outcome.add("taken", picture, job.folder.run.path / f"{picture.key}.png", str(error))
        if conflicts:
            more = f" (and {len(conflicts) - 1} more)" if len(conflicts) > 1 else ""
            reason = str(conflicts[0]).replace("ask to replace it", "add --overwrite")
            echo(f"error: {reason}{more}", err=True)
        if there:
            say.line(f"{there} of {count} pictures are there already")

    def _open(self, folder: Path, adapter: Path | None, jobs: Sequence[Job]) -> tuple[Any, dict[str, Any]]:
        start = time.perf_counter()
        from instancediffusion.pipeline.plan import check_sizes

        pipeline = self._opener(folder, adapter, jobs)()
        check_sizes(pipeline, jobs)
        seconds = round(time.perf_counter() - start, 3)
        return pipeline, {"asked_for": self.model, "device": str(pipeline.device), "loading_seconds": seconds}

    def _opener(self, folder: Path, adapter: Path | None, jobs: Sequence[Job]) -> Callable[[], Any]:
        refined = any(job.settings.refiner_strength for job in jobs if job.pending)
        refiner = self.refiner if refined else None
        return partial(
            _open, folder, adapter, self.dtype, self.device, self.variant, refiner, self.additions.with_model(folder)
        )

    def _spread(
        self, engine: RayOptions, opener: Callable[[], Any], jobs: Sequence[Job], outcome: Outcome, say: Reporter, *,
        batch_size: int,
    ) -> None:  # fmt: skip
        """Make what is missing on a cluster."""
        from instancediffusion.pipeline.spread import generate_spread

        made: set[str] = set()

        def written(path: Path) -> None:
            made.add(path.stem)
            say.made(path)

        todo = [(job.folder, (job.settings, job.additions), job.pending) for job in jobs]
        size = batch_size if all(job.additions.edit is None for job in jobs) else 1
        record = {"asked_for": self.model, "engine": "ray"}
        with say.progress(None, sum(len(job.pending) for job in jobs)):
            failed = generate_spread(
                partial(_maker, opener), todo, options=engine, batch_size=size, record=record, written=written
            )
        for job, lost in zip(jobs, failed, strict=True):
            self._report(job, made, lost, outcome)

    def _make(
        self, pipeline: Any, job: Job, outcome: Outcome, say: Reporter, *, batch_size: int, record: Mapping[str, Any]
    ) -> None:
        from instancediffusion.pipeline.picture_folder import generate_pictures

        made: set[str] = set()

        def written(path: Path) -> None:
            made.add(path.stem)
            say.made(path)

        with say.progress(pipeline, len(job.pending)):
            failed = generate_pictures(
                job.additions.maker(pipeline, job.settings),
                job.folder,
                job.pending,
                batch_size=batch_size if job.additions.edit is None else 1,
                record=record,
                written=written,
            )
        self._report(job, made, failed, outcome)

    @staticmethod
    def _report(job: Job, made: set[str], failed: Sequence[tuple[Picture, Exception]], outcome: Outcome) -> None:
        """Note which pictures were made, and print why the others were not."""
        reasons = {p.key: (str(error).strip() or type(error).__name__).splitlines()[0] for p, error in failed}
        for picture in job.pending:
            path = job.folder.run.path / f"{picture.key}.png"
            if picture.key in reasons:
                outcome.add("failed", picture, path, reasons[picture.key])
            elif picture.key in made:
                outcome.add("made", picture, path)
        for reason in dict.fromkeys(reasons.values()):
            same = [picture for picture, _ in failed if reasons[picture.key] == reason]
            more = f" (and {len(same) - 1} more)" if len(same) > 1 else ""
            echo(f"error: {same[0].name}, seed {same[0].seed}: {reason}{more}", err=True)


def _one_picture(run: _Run, outcome: Outcome, output: Path, overwrite: bool) -> None:
    """Make one picture, into a file or to standard output."""
    from instancediffusion.runs import write_atomic

    count = sum(len(run.seeds or item.seeds or (0,)) for item in run.inputs) * (run.num_images or 1)
    where = "standard output" if str(output) == STANDARD else str(output)
    if count != 1:
        raise click.BadParameter(f"{where} takes one picture, and {count} are asked for", param_hint="--output")
    if str(output) != STANDARD and output.exists() and not overwrite:
        raise click.BadParameter(f"{output} is there; add --overwrite to replace it", param_hint="--output")
    with tempfile.TemporaryDirectory() as folder:
        run.into(Path(folder), outcome, Reporter(quiet=True), batch_size=1, overwrite=False)
        for picture in outcome.pictures:
            if picture["state"] == "made":
                content = Path(picture["path"]).read_bytes()
                picture["path"] = str(output)
                if str(output) == STANDARD:
                    sys.stdout.buffer.write(content)
                    sys.stdout.buffer.flush()
                else:
                    write_atomic(output, content)
                    echo(output)


def _prompt_canvas(options: Mapping[str, Any]) -> tuple[int, int]:
    """(width, height) of the canvas of a prompt: the picture's, where it is given."""
    width, height = options.get("width"), options.get("height")
    if width and height and all(16 <= side <= 8192 for side in (width, height)):
        return width, height
    return 512, 512


def _open(
    folder: Path, adapter: Path | None, dtype: str, device: str | None, variant: str | None, refiner: str | None,
    additions: Additions,
) -> Any:  # fmt: skip
    """Load the model with all that belongs to it."""
    from instancediffusion.pipeline.opening import open_pipeline

    pipeline = open_pipeline(folder, adapter, dtype, device, variant, additions=additions)
    if refiner is not None:
        pipeline.load_refiner(refiner, torch_dtype=pipeline.dtype)
    return pipeline


def _maker(opener: Callable[[], Any]) -> Callable[[tuple[GenerationSettings, Additions]], Any]:
    """Load the model on a machine of a cluster; returns what makes pictures with some settings and additions."""
    pipeline = opener()
    pipeline.set_progress_bar_config(disable=True)
    return lambda how: how[1].maker(pipeline, how[0])


def _settings(options: Mapping[str, Any], defaults: GenerationSettings, loras: Iterable[str]) -> GenerationSettings:
    return settings_of(defaults, options, loras)
