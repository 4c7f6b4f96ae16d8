"""How strongly the instances are injected at each step."""

from __future__ import annotations

import math

from instancediffusion.choices import StepRounding
from instancediffusion.errors import SettingsError


def steps_in_fraction(fraction: float, num_steps: int, rounding: StepRounding = "nearest") -> int:
    """Number of steps in a fraction of the run.

    Args:
        fraction: 0 to 1; larger values count as 1.
        num_steps: steps of the whole run.
        rounding: `"nearest"` rounds halves up, so 0.58 of 50 steps is 29. `"published"` truncates the
            floating-point product as the published code does, so 0.58 of 50 steps is 28.

    Returns:
        0 to `num_steps`.
    """
    product = fraction * num_steps
    # The small addition keeps a half that the product missed by a rounding error a half.
    count = int(product) if rounding == "published" else math.floor(product + 0.5 + 1e-9)
    return max(0, min(count, num_steps))


def grounding_schedule(
    num_steps: int,
    grounding_fraction: float,
    *,
    decay_fraction: float = 0.0,
    rounding: StepRounding = "nearest",
) -> tuple[float, ...]:
    """Grounding scale of every step: 1 for the first fraction of the steps, then 0.

    With a decay the scale falls in equal parts from just under 1 to 0 over the `decay_fraction` of the steps that
    follow. At 0 the gated attention layers are not computed at all.

    Args:
        num_steps: steps of the run, 1 or more.
        grounding_fraction: fraction of the steps with full grounding, 0 to 1.
        decay_fraction: fraction of the steps in which the scale falls, 0 to 1.
        rounding: see `steps_in_fraction`; applied to each fraction by itself, as published.

    Returns:
        `num_steps` values from 0 to 1, never rising.

    Raises:
        SettingsError: a fraction is outside 0..1, or the two together exceed 1.
    """
    for name, value in (("grounding_fraction", grounding_fraction), ("grounding_decay_fraction", decay_fraction)):
        if not 0 <= value <= 1:
            raise SettingsError(f"{name}: {value} is outside 0..1; give a fraction of the steps, such as 0.8")
    if grounding_fraction + decay_fraction > 1 + 1e-6:
        raise SettingsError(
            f"grounding_decay_fraction: {decay_fraction} and grounding_fraction: {grounding_fraction} "
            "add up to more than 1; lower one of them"
        )
    full = steps_in_fraction(grounding_fraction, num_steps, rounding)
    falling = min(steps_in_fraction(decay_fraction, num_steps, rounding), num_steps - full)
    decay = [(falling - 1 - step) / falling for step in range(falling)]
    return (*[1.0] * full, *decay, *[0.0] * (num_steps - full - falling))
