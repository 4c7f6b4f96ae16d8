"""`instancediffusion judge`: the evaluator (judge) that scores pictures."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from .click_types import Group

_FOLDER = click.Path(file_okay=False, path_type=Path)
_COUNT = click.IntRange(min=1)
JUDGE = click.option(
    "--judge",
    "judge_folder",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Evaluator (judge), the folder of `instancediffusion judge train`.",
)
"""The option of every command that cannot do without an evaluator (judge)."""


@click.group(cls=Group)
def judge() -> None:
    """Train and check the evaluator (judge): it detects what a picture of the synthetic world shows."""


@judge.command()
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--run", type=_FOLDER, required=True, help="Folder of the run; continued if it is there.")
@click.option("--output", type=_FOLDER, help="Where the judge is written; default RUN/judge.")
@click.option("--stop-after", type=_COUNT, help="Stop after this many steps, with a checkpoint and a judge.")
@click.option("--checks", type=_COUNT, default=300, show_default=True, help="New composites to measure the judge on.")
def train(recipe: Path, run: Path, output: Path | None, stop_after: int | None, checks: int) -> None:
    """Train an evaluator (judge): RECIPE is a TOML file such as recipes/judge.toml.

    It learns from composites that are drawn while it trains. A run that was stopped or killed continues from its last
    checkpoint when the same command is given again.
    """
    from instancediffusion.projects.emoji_judge.recipe import JudgeRecipe, train_judge
    from instancediffusion.training.config import read_as

    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    train_judge(read_as(JudgeRecipe, recipe), run, output or run / "judge", checks=checks, stop_after=stop_after)


@judge.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--count", type=_COUNT, default=300, show_default=True, help="Composites to evaluate.")
@click.option("--max-objects", type=click.IntRange(1, 16), default=5, show_default=True, help="Most objects in one.")
def check(folder: Path, count: int, max_objects: int) -> None:
    """Measure the judge in FOLDER on composites it was not trained on, with exact ground truth."""
    from instancediffusion.projects.emoji_judge import Judge, check_judge
    from instancediffusion.projects.emoji_judge.layouts import CHECK_SEED, SIDE_PX
    from instancediffusion.projects.emoji_world import World, WorldSpec

    opened = Judge.load(folder)
    spec = WorldSpec(size=SIDE_PX, max_objects=max_objects, objects=opened.config.kinds, part_share=0.0)
    world = World.load(spec=spec)
    for name, score in check_judge(opened, world, count, CHECK_SEED).items():
        click.echo(f"{name:14s} {score}")
