"""The whole design: which conditions a study has."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from instancediffusion.errors import SettingsError
from instancediffusion.projects.emoji_judge.layouts import MIN_OBJECTS
from instancediffusion.projects.emoji_world import World, WorldSpec
from instancediffusion.projects.emoji_world.catalogue import FIRST_CORE
from instancediffusion.scene import KINDS

from .cells import SUITES, Cell
from .flip_and_grid import flip_cells, grid_cells
from .original_suite import original_cells
from .seed_suite import seed_cells

WORLD_PX = 256
"""Side of the composites."""


def knows_world(folder: Path) -> bool:
    """Tell whether a model folder holds a model of the synthetic world, by the card that its export wrote."""
    card = folder / "card.json"
    return card.is_file() and "world" in json.loads(card.read_text(encoding="utf-8"))


def study_world(side_px: int = WORLD_PX) -> World:
    """Open the world whose objects the study is made of; its sprites must have been built."""
    return World.load(
        spec=WorldSpec(size=side_px, min_objects=MIN_OBJECTS, max_objects=4, objects=FIRST_CORE, part_share=0.0)
    )


def design(
    world: World,
    suites: Sequence[str],
    *,
    layouts: int,
    seeds: int,
    repeats: int = 1,
    kinds: Sequence[str] = KINDS,
) -> list[Cell]:
    """List every condition.

    Args:
        world: where the objects are from.
        suites: of `SUITES`; none means all.
        layouts: of `flip`, for different and same class each.
        seeds: of each scene of `seed`.
        repeats: layouts of each combination of `grid`.
        kinds: the kinds of location by which `flip` and `grid` give their layouts.

    Raises:
        SettingsError: an unknown suite.
    """
    if unknown := [suite for suite in suites if suite not in SUITES]:
        raise SettingsError(f"suite: {', '.join(unknown)} is none of {', '.join(SUITES)}")
    cells: list[Cell] = []
    for suite in SUITES:
        if suites and suite not in suites:
            continue
        if suite == "seed":
            cells += seed_cells(world, seeds)
        elif suite == "grid":
            cells += grid_cells(world, repeats, kinds)
        else:
            cells += flip_cells(world, layouts, kinds)
    return cells


def original_design(suites: Sequence[str], seeds: int) -> list[Cell]:
    """List the conditions of the original scenes, which are the suite `seed`.

    Args:
        suites: of `SUITES`; none means `seed`.
        seeds: of each scene.

    Raises:
        SettingsError: a suite that composes layouts of the synthetic world, or an unknown one.
    """
    if others := [suite for suite in suites if suite != "seed"]:
        raise SettingsError(
            f"suite: the original scenes are the suite seed; for {', '.join(others)}, whose layouts are composed from "
            "the synthetic world's objects, add --scenes world and a --detector"
        )
    return list(original_cells(seeds))
