"""`instancediffusion train`: run the stages of a recipe."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

STAGES = ("scenes", "latents", "encoder", "decoder", "text", "diffusion", "export")


@click.command()
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--stage",
    "stages",
    multiple=True,
    type=click.Choice(STAGES),
    help="Stage to run; several are run in order. Default: all.",
)
@click.option(
    "--run",
    "run",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder of the run; continued if it is there.",
)
@click.option("--stop-after", type=click.IntRange(min=1), help="Stop a stage after this many steps, with a checkpoint.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the stage export writes; default RUN/export.",
)
def train(recipe: Path, stages: tuple[str, ...], run: Path, stop_after: int | None, output: Path | None) -> None:
    """Train a model from nothing: RECIPE is a TOML file such as recipes/mini.toml.

    A stage that was stopped or killed continues from its last checkpoint when the same command is given again.
    """
    from instancediffusion.training import stages as run_stage
    from instancediffusion.training.config import read_recipe

    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    settings = read_recipe(recipe)
    for stage in [name for name in STAGES if name in stages] or STAGES:
        if stage == "scenes":
            run_stage.scenes(settings, run)
        elif stage == "latents":
            run_stage.latents(settings, run)
        elif stage in ("encoder", "decoder"):
            run_stage.autoencoder_half(
                settings, run, "encoder" if stage == "encoder" else "decoder", stop_after=stop_after
            )
        elif stage == "text":
            run_stage.text(settings, run, stop_after=stop_after)
        elif stage == "diffusion":
            run_stage.diffusion(settings, run, stop_after=stop_after)
        else:
            from instancediffusion.training.export import export

            export(settings, run, output or run / "export")
