"""`instancediffusion study`: what overlaps do to a model, measured."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from instancediffusion.choices import precision_fact

from .click_types import Group
from .libraries import quieten_libraries
from .model_options import engine_options
from .progress import Countdown
from .settings_options import settings_of, settings_options
from .study_ablation import ablation
from .study_objects import captions, seeds

if TYPE_CHECKING:
    from instancediffusion.ray_pool import RayOptions

SUITES = ("seed", "grid", "flip")
DETECTOR, SEGMENTER = "google/owlv2-base-patch16-ensemble", "facebook/sam-vit-base"
_COUNT = click.IntRange(min=1)


@click.group(cls=Group)
def study() -> None:
    """Measure a model in pictures made for one question."""


for _command in (ablation, captions, seeds):
    study.add_command(_command)


@study.command()
@click.option("--model", default="mini", show_default=True, help="mini, a folder or a hub id.")
@click.option(
    "--scenes",
    type=click.Choice(("world", "original")),
    help="Of the synthetic world, or the original ones (suite `seed`). Default: those that suit the model.",
)
@click.option("--suite", "suites", type=click.Choice(SUITES), multiple=True, help="Repeatable. Default: all.")
@click.option("-o", "--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to fill.")
@click.option("--compare", "names", multiple=True, help="One of the compared settings; repeatable. Default: all.")
@click.option(
    "--judge",
    "judge_folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Evaluator (judge), the folder of `instancediffusion judge train`; needed for scenes of the synthetic world.",
)
@click.option("--detector", help=f"Measure with a detector of photographs: hub id or folder, such as {DETECTOR}.")
@click.option("--segmenter", help=f"Measure with its segmenter, too.  [default: {SEGMENTER}]")
@click.option("--layouts", type=_COUNT, default=50, show_default=True, help="Layouts of `flip`, of each sort.")
@click.option("--seeds", type=_COUNT, default=32, show_default=True, help="Seeds of each scene of `seed`.")
@click.option("--repeats", type=_COUNT, default=1, show_default=True, help="Layouts of each combination of `grid`.")
@click.option(
    "--kinds", default="box,point,scribble,mask", show_default=True, help="How `flip` and `grid` give locations."
)
@settings_options(alone=True)
@click.option("--device", default="cpu", show_default=True, help="Where the model runs.")
@click.option("--overwrite", is_flag=True, help="Throw pictures of another model in the folder away.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@engine_options
def overlap(
    model: str,
    scenes: str | None,
    suites: tuple[str, ...],
    output: Path,
    names: tuple[str, ...],
    judge_folder: Path | None,
    detector: str | None,
    segmenter: str | None,
    layouts: int,
    seeds: int,
    repeats: int,
    kinds: str,
    device: str,
    overwrite: bool,
    quiet: bool,
    engine: RayOptions | None,
    **options: Any,
) -> None:
    """Who is in front, what blends, how much a location binds.

    OUTPUT gets the design (design.jsonl), the pictures, the numbers of each picture (rows.jsonl), report.json,
    report.md, and report.html, which needs nothing beside itself, as do the pages test0.html to test5.html. The same
    command again makes only what is missing; with --engine ray a cluster makes it.

    Pictures of the synthetic world are measured by a trained --judge. Those of other models take a --detector
    or a --segmenter; without them the report shows pictures and times.
    """
    quieten_libraries(bars=False)
    from instancediffusion.checkpoints import model_defaults, weights_sha256
    from instancediffusion.pipeline.loading import local_model
    from instancediffusion.pipeline.opening import open_quietly
    from instancediffusion.projects.overlap_study.compared import chosen
    from instancediffusion.projects.overlap_study.design import design, knows_world, original_design, study_world
    from instancediffusion.projects.overlap_study.meters import open_meter
    from instancediffusion.projects.overlap_study.study_run import StudyRun
    from instancediffusion.projects.overlap_study.write import write_design, write_report

    folder = local_model(model)
    defaults = settings_of(model_defaults(folder), options)
    compared = chosen(names, defaults)
    of_world = knows_world(folder)
    scenes = scenes or ("world" if of_world else "original")
    if scenes == "original":
        conditions, synthetic = original_design(suites, seeds), None
    else:
        world = study_world()
        conditions = design(world, suites, layouts=layouts, seeds=seeds, repeats=repeats, kinds=_kinds(kinds))
        synthetic = world if of_world else None
    metric = open_meter(synthetic, judge_folder, detector, segmenter, device)
    run = StudyRun(output, conditions, compared, metric)
    weights = weights_sha256(folder)
    run.claim({"weights": weights, **precision_fact(device)}, replace=overwrite)
    missing = run.missing()
    if missing:
        counter = Countdown("pictures", len(missing), quiet=quiet)
        if engine is None:
            run.make(open_quietly(folder, device=device), missing, counter.add)
        else:
            run.spread(partial(open_quietly, folder, device=device), missing, engine, counter.add)
    suites = suites or (SUITES if scenes == "world" else ("seed",))
    facts: dict[str, Any] = {"model": model, "weights": weights, "scenes": scenes, "suites": list(suites)}
    facts |= {"layouts": layouts, "seeds": seeds, "repeats": repeats, "kinds": kinds, "cells": len(conditions)}
    facts |= {"judge": metric.describe()}
    write_design(run)
    for path in write_report(run, facts, lambda what, total: Countdown(what, total, quiet=quiet).add):
        if not quiet:
            click.echo(str(path))


def _kinds(text: str) -> tuple[str, ...]:
    from instancediffusion.scene import KINDS

    kinds = tuple(dict.fromkeys(kind.strip() for kind in text.split(",")))
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise click.BadParameter(f"{', '.join(unknown)!r}: choose from {', '.join(KINDS)}", param_hint="--kinds")
    return kinds
