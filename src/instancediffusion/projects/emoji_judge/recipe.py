"""Recipes of judges, and the training run of one: the judge's task in the training loop."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instancediffusion.projects.emoji_judge import Judge, JudgeConfig, JudgeLessons, JudgeTask, check_judge
from instancediffusion.projects.emoji_judge.layouts import CHECK_SEED
from instancediffusion.projects.emoji_judge.network import JudgeNetwork
from instancediffusion.projects.emoji_judge.pair_task import PairTask, check_pairs
from instancediffusion.projects.emoji_world import World, WorldSpec
from instancediffusion.projects.emoji_world.catalogue import FIRST_CORE
from instancediffusion.training.config import OptimiserConfig
from instancediffusion.training.fit import fit

PAIRS = "pairs"
"""Folder of the pair reader's run within the judge's."""

log = logging.getLogger("instancediffusion.training")


@dataclass(frozen=True)
class PairRecipe:
    """The pair reader of a judge: its lessons, its run."""

    lessons: JudgeLessons = field(default_factory=JudgeLessons)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)


@dataclass(frozen=True)
class JudgeRecipe:
    """A judge: its name, its networks, its lessons, its run; the pair reader, if it has one, has a run of its own."""

    name: str
    network: JudgeConfig = field(default_factory=JudgeConfig)
    lessons: JudgeLessons = field(default_factory=JudgeLessons)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    pairs: PairRecipe = field(default_factory=PairRecipe)


def train_judge(
    recipe: JudgeRecipe,
    run: Path,
    output: Path,
    *,
    world: World | None = None,
    checks: int = 300,
    stop_after: int | None = None,
) -> Judge:
    """Train a judge, or resume its run; save its EMA weights and its accuracy.

    Args:
        recipe: what to train.
        run: folder of the run.
        output: folder to write the judge to.
        world: another world than the built-in one; its pictures have the lessons' side.
        checks: held-out composites to measure it on.
        stop_after: end after this many steps of this call.
    """
    lessons, settings = recipe.lessons, recipe.optimiser
    drawn = world or lesson_world(lessons)
    task = JudgeTask(dataclasses.replace(recipe.network, pair_widths=()), lessons, drawn, **_options(settings))
    # The classes and colours are part of what must not change during a run.
    depends = {"name": recipe.name, "network": task.config.to_dict(), **_depends(lessons, settings)}
    ema = fit(task, settings, run, depends, stop_after=stop_after)
    ema.apply()
    judge = Judge(task.network, {"name": recipe.name, **_history(ema.updates, settings)})
    # The pair reader starts from the reader, so its run begins when that is done.
    if recipe.network.pair_widths and ema.updates >= settings.steps:
        judge = with_pair_reader(judge, recipe, run / PAIRS, world=world, checks=checks, stop_after=stop_after)
    judge.card["accuracy"] = accuracy(judge, drawn, checks)
    judge.save(output)
    log.info("%s: %s", output, judge.card["accuracy"])
    return judge


def with_pair_reader(
    judge: Judge,
    recipe: JudgeRecipe,
    run: Path,
    *,
    world: World | None = None,
    checks: int = 300,
    stop_after: int | None = None,
) -> Judge:
    """Train the pair reader of a trained judge, or resume its run.

    Args:
        judge: it keeps its detector and reader.
        recipe: `network.pair_px`, `network.pair_widths` and `pairs` are taken from it.
        run: folder of the run.
        world: another world than the built-in one; its pictures have the side of these lessons.
        checks: held-out composites to measure it on.
        stop_after: end after this many steps of this call.
    """
    network, lessons, settings = recipe.network, recipe.pairs.lessons, recipe.pairs.optimiser
    config = dataclasses.replace(judge.config, pair_px=network.pair_px, pair_widths=network.pair_widths)
    drawn = world or lesson_world(lessons)
    task = PairTask(config, lessons, drawn, **_options(settings))
    task.network.start_from(judge.network.reader)
    ema = fit(task, settings, run, {"pairs": config.to_dict(), **_depends(lessons, settings)}, stop_after=stop_after)
    ema.apply()
    whole = JudgeNetwork(config)
    of_pairs = {f"pairs.{name}": value for name, value in task.network.state_dict().items()}
    whole.load_state_dict({**judge.network.state_dict(), **of_pairs})
    measured = check_pairs(task.network, config, drawn, checks, CHECK_SEED)
    return Judge(whole, {**judge.card, "pairs": {**_history(ema.updates, settings), "accuracy": measured}})


def _options(settings: OptimiserConfig) -> dict[str, Any]:
    """What a task takes from the settings of its run."""
    return {
        "batch_size": settings.batch_size,
        "seed": settings.seed,
        "half": settings.precision == "bf16",
    }


def _depends(lessons: JudgeLessons, settings: OptimiserConfig) -> dict[str, Any]:
    return {"lessons": dataclasses.asdict(lessons), "optimiser": dataclasses.asdict(settings)}


def lesson_world(lessons: JudgeLessons) -> World:
    """Open the built-in world that a judge is trained on: objects in all their sprites, without parts."""
    options = {"objects": FIRST_CORE, "part_share": 0.0, **lessons.options}
    return World.load(spec=WorldSpec.from_options(options, size=lessons.side_px))


def accuracy(judge: Judge, world: World, count: int) -> dict[str, Any]:
    """Measure a judge on held-out composites; rounded, for its card."""
    scores = check_judge(judge, world, count, CHECK_SEED)
    return {"composites": count, **{name: round(score.value, 4) for name, score in scores.items()}}


def _history(steps: int, settings: OptimiserConfig) -> dict[str, Any]:
    return {"steps": steps, "pictures": steps * settings.batch_size, "planned_steps": settings.steps}
