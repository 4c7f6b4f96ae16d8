"""The pictures a call asks for: scene, seed and size of each."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from instancediffusion.errors import SettingsError
from instancediffusion.scene import Scene

MAX_SEED = 2**64 - 1
"""The largest seed; torch takes all of 64 bits."""


@dataclass(frozen=True)
class ImageRequest:
    """One picture to make.

    Attributes:
        index: its place in the output.
        scene: the scene.
        scene_row: the scene's place among those of the call.
        seed: of its generator.
        size: (height, width) in pixels.
    """

    index: int
    scene: Scene
    scene_row: int
    seed: int
    size: tuple[int, int]


def image_requests(
    scenes: Sequence[Scene], seeds: Sequence[int], size_of: Callable[[Scene], tuple[int, int]]
) -> list[ImageRequest]:
    """Every scene with every seed, scene by scene.

    Raises:
        SettingsError: there is no scene, or one is of another type.
    """
    if not scenes or not all(isinstance(scene, Scene) for scene in scenes):
        raise SettingsError("scene: give a Scene or a list of at least one; load_scene reads a file")
    pairs = [(row, scene, seed) for row, scene in enumerate(scenes) for seed in seeds]
    return [ImageRequest(k, scene, row, seed, size_of(scene)) for k, (row, scene, seed) in enumerate(pairs)]


def resolve_seeds(seed: int | Sequence[int] | None, num_images_per_scene: int | None) -> list[int]:
    """The seeds that every scene is drawn with.

    Args:
        seed: a number (further images of a scene count up from it), or one for each image of a scene. None draws
            one below 2**32.
        num_images_per_scene: images of each scene; None means as many as there are seeds, or one.

    Raises:
        SettingsError: a seed is no whole number of 0..2**64 - 1, or the two disagree.
    """
    count = 1 if num_images_per_scene is None else num_images_per_scene
    if not _is_integer(count) or count < 1:
        raise SettingsError(f"num_images_per_scene: {num_images_per_scene!r} is not a whole number of 1 or more")
    first: Any = secrets.randbelow(2**32) if seed is None else seed
    if isinstance(first, Sequence) and not isinstance(first, str):
        seeds = list(first)
        if not seeds or (num_images_per_scene is not None and len(seeds) != num_images_per_scene):
            raise SettingsError(f"seed: {len(seeds)} seeds are given; give one for each image of a scene, or a number")
    else:
        seeds = [first + k for k in range(count)] if _is_integer(first) else [first]
    for value in seeds:
        if not _is_integer(value) or not 0 <= value <= MAX_SEED:
            raise SettingsError(f"seed: {value!r} is not a whole number from 0 to 2**64 - 1")
    return seeds


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
