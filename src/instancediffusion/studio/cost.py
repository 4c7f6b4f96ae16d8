"""What a request will cost, before it is made."""

from __future__ import annotations

import math
from collections.abc import Iterable

from instancediffusion.pipeline.merging import merge_rule, steps_before_merge
from instancediffusion.sampling import is_guided, steps_in_fraction
from instancediffusion.scene import Scene
from instancediffusion.settings import GenerationSettings

NOMINAL_CELLS, NOMINAL_FACTOR = (64, 64), 8
"""The latent and factor that costs of crops are reckoned with, whatever the model: fractions hardly depend on them."""


def rows_of_steps(scene: Scene, settings: GenerationSettings) -> list[int]:
    """NFE of each step of one picture, at most.

    One evaluation is one batch element; guidance doubles them, and in the first steps each instance adds its own
    branch, or the fraction of it that its crop is. Order guidance may add one. An evaluation in a step that reuses deep
    features counts as any other.
    """
    steps = settings.num_inference_steps
    first, last = (steps_in_fraction(fraction, steps) for fraction in (settings.guidance_start, settings.guidance_end))
    guided = is_guided(settings.guidance_scale)
    until_merge = min(steps_before_merge(settings), steps)
    ordered = steps_in_fraction(settings.order_guidance_fraction, steps) if settings.order_guidance_scale else 0
    merge = merge_rule(scene, settings, NOMINAL_CELLS, NOMINAL_FACTOR)
    branches = sum(merge.crops[i].share(NOMINAL_CELLS) if i in merge.crops else 1 for i in merge.instances)
    return [
        math.ceil(
            (1 + (guided and first <= step < last)) * (1 + (branches if step < until_merge else 0))
            + (1 if step < ordered else 0)
        )
        for step in range(steps)
    ]


def total_rows(requests: Iterable[tuple[Scene, GenerationSettings, int]]) -> int:
    """NFE of several requests of (scene, settings, pictures)."""
    return sum(sum(rows_of_steps(scene, settings)) * pictures for scene, settings, pictures in requests)
