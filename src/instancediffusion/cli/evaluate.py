"""`instancediffusion evaluate`: pictures of unseen layouts, and how good they are."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from instancediffusion.choices import precision_fact
from instancediffusion.errors import SettingsError
from instancediffusion.presets import PUBLISHED_INFERENCE
from instancediffusion.scene import KINDS

from .click_types import Output
from .libraries import quieten_libraries
from .model_options import engine_options
from .progress import Countdown, echo
from .settings_options import settings_of, settings_options
from .suite_options import judged, suite_options

if TYPE_CHECKING:
    from instancediffusion.evaluation.suites.bench_run import Maker
    from instancediffusion.pipeline import GenerationSettings
    from instancediffusion.ray_pool import RayOptions

GROUPS = (*KINDS, "mixed", "prompt")
_COUNT = click.IntRange(min=1)


def _groups(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """Read a list of groups, separated by commas."""
    names = GROUPS if value == "all" else tuple(dict.fromkeys(name.strip() for name in value.split(",")))
    unknown = [name for name in names if name not in GROUPS]
    if unknown or not names:
        raise click.BadParameter(f"{', '.join(unknown)!r}: choose from {', '.join(GROUPS)}, or all", context, parameter)
    return tuple(name for name in GROUPS if name in names)


def _ratio(context: click.Context, parameter: click.Parameter, value: str) -> float:
    """Read the shape of a canvas, "3:2" or "1.5"."""
    width, _, height = value.partition(":")
    try:
        ratio = float(width) / float(height or 1)
    except (ValueError, ZeroDivisionError):
        ratio = 0.0
    if not 0.25 <= ratio <= 4:
        raise click.BadParameter(f"{value!r}: give width to height, from 1:4 to 4:1, such as 3:2", context, parameter)
    return ratio


@click.command()
@click.option("--model", default="mini", show_default=True, help="mini, a folder or a hub id.")
@click.option(
    "--judge",
    "judge_folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Evaluator (judge), the folder of `instancediffusion judge train`. Needed without --suite; with --suite flip "
    "it looks in place of detectors.",
)
@click.option("-o", "--output", required=True, type=Output(file_okay=False), help="Folder to fill.")
@click.option("--layouts", "count", type=_COUNT, default=500, show_default=True, help="Layouts of each kind.")
@click.option(
    "--kinds",
    "groups",
    default="all",
    show_default=True,
    callback=_groups,
    help=f"What is given of each layout, separated by commas: {', '.join(GROUPS)}.",
)
@click.option(
    "--settings",
    "base",
    type=click.Choice(["default", "published"]),
    default="default",
    show_default=True,
    help="The model's own, or the published code's inference options: PLMS with 50 steps, grounding 0.8, mean merge "
    "after 0.36, no attention mask.",
)
@settings_options(alone=True)
@click.option("--no-order", is_flag=True, help="Do not give the depth order.")
@click.option("--max-objects", type=click.IntRange(1, 16), default=5, show_default=True, help="Most objects, from 1.")
@click.option(
    "--aspect", default="1:1", show_default=True, callback=_ratio, help="Width to height of the layouts: 3:2, 2:3, 1.5."
)
@click.option("--batch-size", type=_COUNT, default=4, show_default=True, help="Pictures made together.")
@click.option("--device", default="cpu", show_default=True, help="Where the model runs.")
@click.option("--overwrite", is_flag=True, help="Make pictures again that are there with other settings.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@engine_options
@suite_options
def evaluate(
    model: str,
    judge_folder: Path | None,
    output: Path,
    count: int,
    groups: tuple[str, ...],
    base: str,
    no_order: bool,
    max_objects: int,
    aspect: float,
    batch_size: int,
    device: str,
    overwrite: bool,
    quiet: bool,
    engine: RayOptions | None,
    bench: dict[str, Any],
    **options: Any,
) -> None:
    """Make pictures of layouts that are in no training set, evaluate them, and write the scores.

    With --suite, score pictures of any scenes by a published protocol, from any source (docs/publish.md).

    OUTPUT gets report.json and report.md, for each kind its pictures, the scores of each instance (scores.jsonl) and
    two contact sheets: the first pictures and the worst. The same command again makes only what is missing.
    """
    quieten_libraries(bars=False)
    from instancediffusion.checkpoints import model_defaults, weights_sha256
    from instancediffusion.evaluation.gallery import Gallery
    from instancediffusion.pipeline.loading import local_model
    from instancediffusion.pipeline.opening import open_quietly
    from instancediffusion.projects.emoji_judge.evaluation_run import EvaluationRun, open_judge
    from instancediffusion.projects.emoji_judge.layouts import FIRST_SEED

    def progress(what: str, total: int) -> Countdown:
        return Countdown(what, total, quiet=quiet)

    facts = {"model": model, "preset": options["preset"] or base}
    if bench["suites"] and engine is not None:
        raise SettingsError(
            "engine: suites make their pictures in this process; make them with `generate --engine ray`"
        )
    if bench["suites"]:
        from instancediffusion.annotation.models.depth import NearDepth
        from instancediffusion.evaluation.suites.bench_run import BenchOptions, run_bench

        if judge_folder is not None:
            bench = judged(bench, judge_folder)
        make = lambda: _maker(model, base, options, not no_order, device, batch_size, overwrite)  # noqa: E731
        openers = {"depth": NearDepth, "judge": lambda name, _: open_judge(Path(name), 5)[0]}
        for path in run_bench(BenchOptions(**bench), output, device, make, progress, facts, openers):
            if not quiet:
                echo(str(path))
        return
    folder = local_model(model)
    chosen = settings_of(base_settings(model_defaults(folder), base), options)
    judge, world = open_judge(judge_folder, max_objects, aspect)
    weights = weights_sha256(folder)
    decisive = {
        "weights": weights,
        "settings": chosen.decisive(),
        "order_told": not no_order,
        "first_seed": FIRST_SEED,
        "world": dataclasses.asdict(world.spec),
        "kinds": [kind.name for kind in world.kinds],
        "backgrounds": [background.name for background in world.backgrounds],
    }
    decisive |= precision_fact(device)
    run = EvaluationRun(
        gallery=Gallery(output, decisive, replace=overwrite),
        world=world,
        judge=judge,
        settings=chosen,
        count=count,
        order=not no_order,
        facts=facts | {"weights": weights},
        open_pipeline=partial(open_quietly, folder, device=device),
        batch_size=batch_size,
        progress=progress,
        engine=engine,
    )
    for path in run.go(groups):
        if not quiet:
            echo(str(path))


def _maker(
    model: str, base: str, options: dict[str, Any], order: bool, device: str, batch_size: int, overwrite: bool
) -> Maker:
    """Prepare to make the pictures of a suite's scenes."""
    from instancediffusion.checkpoints import model_defaults, weights_sha256
    from instancediffusion.evaluation.suites.bench_run import Maker
    from instancediffusion.pipeline.loading import local_model
    from instancediffusion.pipeline.opening import open_quietly

    folder = local_model(model)
    chosen = settings_of(base_settings(model_defaults(folder), base), options)
    decisive = {"weights": weights_sha256(folder), "settings": chosen.decisive(), "order_told": order}
    decisive |= precision_fact(device)
    return Maker(decisive, chosen, partial(open_quietly, folder, device=device), batch_size, overwrite, order)


def base_settings(defaults: GenerationSettings, name: str) -> GenerationSettings:
    """The settings that preset and options stand on."""
    return defaults.replace(**PUBLISHED_INFERENCE) if name == "published" else defaults
