"""`instancediffusion train`: run the stages of a recipe."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from instancediffusion.errors import SettingsError

if TYPE_CHECKING:
    from instancediffusion.training.config import Recipe
    from instancediffusion.training.preview import Scorer

STAGES = (
    *("scenes", "autoencoder", "words", "text", "latents", "relative", "diffusion", "decoder", "distillation"),
    "export",
)
_BY_ONE = ("scenes", "latents", "export")
"""Stages that one process does for all."""


@click.command()
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--stage",
    "stages",
    multiple=True,
    type=click.Choice(STAGES),
    help="Stage to run; several are run in order. Default: all that the recipe has.",
)
@click.option(
    "--run",
    "run",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder of the run; continued if it is there.",
)
@click.option(
    "--dataset",
    type=click.Path(exists=True, path_type=Path),
    help="Data set to learn from in place of the recipe's, of any format of `instancediffusion data`.",
)
@click.option("--stop-after", type=click.IntRange(min=1), help="Stop a stage after this many steps, with a checkpoint.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the stage export writes; default RUN/export.",
)
@click.option(
    "--judge",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of an evaluator (judge) that scores the stage diffusion every `score_every` steps.",
)
def train(
    recipe: Path,
    stages: tuple[str, ...],
    run: Path,
    dataset: Path | None,
    stop_after: int | None,
    output: Path | None,
    judge: Path | None,
) -> None:
    """Train a model from nothing, or an adapter for a base: RECIPE is a TOML file such as recipes/mini.toml.

    With --dataset, or a recipe that names a data set, an adapter learns from labelled pictures of your own. A recipe
    that names a teacher distils it to few steps.

    A stage that was stopped or killed continues from its last checkpoint when the same command is given again. Several
    processes, as started by `accelerate launch` or `torchrun`, share the work of each step.
    """
    from instancediffusion.projects.emoji_world import World, WorldSpec
    from instancediffusion.training import stages as run_stage
    from instancediffusion.training.config import read_recipe
    from instancediffusion.training.drawn_scenes import register_world
    from instancediffusion.training.processes import launched_alone, open_accelerator

    register_world(lambda options: World.load(spec=WorldSpec.from_options(options)))

    settings = read_recipe(recipe)
    if dataset is not None:
        settings = replace(
            settings,
            dataset=replace(settings.dataset, path=str(dataset)),
            export=replace(settings.export, pictures=f"the data set {dataset.name}", licence="not stated"),
        )
    if judge is not None and not settings.diffusion.optimiser.score_every:
        raise SettingsError("--judge: diffusion.optimiser.score_every = 0 asks for no scores; set it in the recipe")
    accelerator = open_accelerator()
    level = logging.INFO if accelerator.is_main_process else logging.WARNING
    logging.basicConfig(stream=sys.stdout, level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if launched_alone():
        logging.getLogger("instancediffusion.training").warning(
            "one process was started: accelerate launch --cpu needs MPI for more; for two without it: "
            "torchrun --nproc-per-node 2 -m instancediffusion train ..."
        )
    known = run_stage.names(settings)
    if unknown := [stage for stage in stages if stage not in known]:
        raise SettingsError(f"--stage {unknown[0]}: the stages of this recipe are {', '.join(known)}")
    for stage in [name for name in known if name in stages or not stages]:
        if accelerator.is_main_process or stage not in _BY_ONE:
            _run(stage, settings, run, stop_after, output or run / "export", judge)
        accelerator.wait_for_everyone()
    accelerator.end_training()


def _run(stage: str, settings: Recipe, run: Path, stop_after: int | None, output: Path, judge: Path | None) -> None:
    from instancediffusion.training import stages as run_stage

    if stage == "scenes":
        run_stage.scenes(settings, run)
    elif stage == "autoencoder":
        run_stage.autoencoder(settings, run, stop_after=stop_after)
    elif stage == "words":
        run_stage.words(settings, run, stop_after=stop_after)
    elif stage == "text":
        run_stage.text(settings, run, stop_after=stop_after)
    elif stage == "latents":
        run_stage.latents(settings, run)
    elif stage == "relative":
        run_stage.relative(settings, run, stop_after=stop_after)
    elif stage == "diffusion":
        run_stage.diffusion(settings, run, stop_after=stop_after, scorer=_scorer(judge, settings))
    elif stage == "decoder":
        run_stage.decoder(settings, run, stop_after=stop_after)
    elif stage == "distillation":
        run_stage.distillation(settings, run, stop_after=stop_after)
    else:
        from instancediffusion.training.export import export

        export(settings, run, output)


def _scorer(judge: Path | None, settings: Recipe) -> Scorer | None:
    if judge is None:
        return None
    from instancediffusion.projects.emoji_judge.scorer import JudgeScorer
    from instancediffusion.projects.emoji_world import World, WorldSpec

    return JudgeScorer(judge, World.load(spec=WorldSpec.from_options(settings.world.options)))
