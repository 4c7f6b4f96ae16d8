"""What a request will cost, before it is made."""

from __future__ import annotations

from collections.abc import Iterable

from instancediffusion.pipeline import GenerationSettings
from instancediffusion.pipeline.merging import steps_before_merge
from instancediffusion.scene import Scene


def rows_of_steps(scene: Scene, settings: GenerationSettings) -> list[int]:
    """Network rows of each step of one picture, at most.

    A row is one latent through the network; guidance doubles them, and in the first steps each instance adds its own.
    """
    halves = 1 if settings.guidance_scale == 1 else 2
    apart = min(steps_before_merge(settings), settings.num_inference_steps)
    return [
        halves * (1 + (len(scene.instances) if step < apart else 0)) for step in range(settings.num_inference_steps)
    ]


def total_rows(requests: Iterable[tuple[Scene, GenerationSettings, int]]) -> int:
    """Network rows of several requests of (scene, settings, pictures)."""
    return sum(sum(rows_of_steps(scene, settings)) * pictures for scene, settings, pictures in requests)
