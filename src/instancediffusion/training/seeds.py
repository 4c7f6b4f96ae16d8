"""Random numbers of a step, made from the run's seed and the step's number alone."""

from __future__ import annotations

import numpy as np
import torch


def step_seed(seed: int, step: int, purpose: int = 0) -> int:
    """Return the seed of one step's random numbers; seeds of different steps, runs and purposes are unrelated."""
    return int(np.random.SeedSequence([seed, step, purpose]).generate_state(2, np.uint32).view(np.uint64)[0] >> 1)


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return the generator that everything random in a step is drawn from, on the CPU whatever computes the step."""
    return torch.Generator().manual_seed(step_seed(seed, step))
