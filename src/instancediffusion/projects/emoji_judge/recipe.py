"""Recipes of judges, and the training run of one: the judge's task in the training loop."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instancediffusion.projects.emoji_judge import Judge, JudgeConfig, JudgeLessons, JudgeTask, check_judge
from instancediffusion.projects.emoji_judge.layouts import CHECK_SEED
from instancediffusion.projects.emoji_world import World, WorldSpec
from instancediffusion.projects.emoji_world.catalogue import FIRST_CORE
from instancediffusion.training.config import OptimiserConfig
from instancediffusion.training.fit import fit

log = logging.getLogger("instancediffusion.training")


@dataclass(frozen=True)
class JudgeRecipe:
    """A judge: its name, its networks, its lessons, its run."""

    name: str
    network: JudgeConfig = field(default_factory=JudgeConfig)
    lessons: JudgeLessons = field(default_factory=JudgeLessons)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)


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
    task = JudgeTask(
        recipe.network,
        lessons,
        drawn,
        batch_size=settings.batch_size,
        seed=settings.seed,
        half=settings.precision == "bf16",
    )
    # The classes and colours are part of what must not change during a run.
    depends = {
        "name": recipe.name,
        "network": task.config.to_dict(),
        "lessons": dataclasses.asdict(lessons),
        "optimiser": dataclasses.asdict(settings),
    }
    ema = fit(task, settings, run, depends, stop_after=stop_after)
    ema.apply()
    steps, batch = ema.updates, settings.batch_size
    history = {"steps": steps, "pictures": steps * batch, "planned_steps": settings.steps}
    judge = Judge(task.network, {"name": recipe.name, **history}, sprites=drawn.sprites)
    judge.card["accuracy"] = accuracy(judge, drawn, checks)
    judge.save(output)
    log.info("%s: %s", output, judge.card["accuracy"])
    return judge


def lesson_world(lessons: JudgeLessons) -> World:
    """Open the built-in world that a judge is trained on: objects in all their sprites, without parts."""
    options = {"objects": FIRST_CORE, "part_share": 0.0, **lessons.options}
    return World.load(spec=WorldSpec.from_options(options, size=lessons.side_px))


def accuracy(judge: Judge, world: World, count: int) -> dict[str, Any]:
    """Measure a judge on held-out composites; rounded, for its card."""
    scores = check_judge(judge, world, count, CHECK_SEED)
    return {"composites": count, **{name: round(score.value, 4) for name, score in scores.items()}}
