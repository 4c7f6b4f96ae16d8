"""The layouts that models are evaluated on: the same for every model, and in no training set.

World seeds from `FIRST_SEED` on belong to these layouts; training takes its seeds from 0 up. One layout serves every
type of location, so that scores of two types, or of two settings, are of the same objects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from instancediffusion.errors import SettingsError
from instancediffusion.evaluation.truth import Truth, truth_of_prompt, truth_of_sample
from instancediffusion.projects.emoji_world import World, WorldSample
from instancediffusion.scene import KINDS, Instance, Scene

SIDE_PX = 192
"""Side of the world's pictures. A world of another size draws other scenes from the same seeds."""

FIRST_SEED = 10_000_000
"""Seed of layout 0."""

REFERENCE_SEED = 20_000_000
"""Seed of the first composite that sets of pictures are compared with."""

CHECK_SEED = 30_000_000
"""Seed of the first composite a judge is checked on."""

JUDGE_SEED = 40_000_000
"""Seed of the first composite a judge is trained on."""

MIXED, PROMPT = "mixed", "prompt"
GROUPS = (*KINDS, MIXED, PROMPT)
"""What the model can be given: one type of location for all instances, a type for each of them, or the prompt only."""

COUNT = 500
MIN_OBJECTS, MAX_OBJECTS = 1, 5


@dataclass(frozen=True, eq=False)
class Layout:
    """One picture to make.

    Attributes:
        number: counts from 0.
        group: one of `GROUPS`.
        sample: the world's own picture and its ground truth.
        scene: what the model is given.
        truth: the ground truth it is evaluated against.
        seed: of the initial noise.
    """

    number: int
    group: str
    sample: WorldSample
    scene: Scene
    truth: Truth
    seed: int


def layouts(
    world: World, group: str, count: int = COUNT, *, first: int = 0, order: bool = True, first_seed: int = FIRST_SEED
) -> Iterator[Layout]:
    """Draw layouts.

    Args:
        world: its `spec` says how many objects there are and how large.
        group: one of `GROUPS`.
        count: how many.
        first: number of the first one.
        order: state the depth order.
        first_seed: world seed of layout 0.

    Raises:
        SettingsError: an unknown group.
    """
    for number in range(first, first + count):
        yield layout_of(world, world.sample(first_seed + number), group, number, order=order)


def layout_of(world: World, sample: WorldSample, group: str, number: int, *, order: bool = True) -> Layout:
    """Make the layout of a sample; see `layouts`."""
    if group not in GROUPS:
        raise SettingsError(f"group: {group!r} is none of {', '.join(GROUPS)}")
    if group == PROMPT:
        height, width = sample.image.shape[:2]
        scene = Scene(sample.prompt, (), width=width, height=height)
        return Layout(number, group, sample, scene, truth_of_prompt(sample, scene, world.kinds), number)
    scene = sample.to_scene(KINDS if group == MIXED else (group,), order=order)
    if group == MIXED:
        rng = np.random.Generator(np.random.PCG64([23, sample.seed]))
        kept = [KINDS[int(rng.integers(len(KINDS)))] for _ in scene.instances]
        instances = tuple(_only(instance, kind) for instance, kind in zip(scene.instances, kept, strict=True))
        scene = dataclasses.replace(scene, instances=instances)
    return Layout(number, group, sample, scene, truth_of_sample(sample, scene), number)


def _only(instance: Instance, kind: str) -> Instance:
    """Return the instance with one of its locations."""
    others: dict[str, Any] = {other: None for other in KINDS if other != kind}
    return dataclasses.replace(instance, **others)
