"""Where the randomness of a run comes from: one generator for each image, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def generators_for(seeds: Sequence[int]) -> list[torch.Generator]:
    """One CPU generator for each image. The CPU's stream is the same on every machine and for every device."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def start_noise(generators: Sequence[torch.Generator], shape: tuple[int, int, int]) -> Tensor:
    """Standard normal noise of each image, (B, C, H, W) float32 on the CPU.

    Batch element k depends on generator k only, so an image is the same in a batch as by itself. `shape` is (C, H, W).
    """
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])


def copy_generator(generator: torch.Generator) -> torch.Generator:
    """A generator that will draw what this one would have drawn."""
    copy = torch.Generator(generator.device)
    copy.set_state(generator.get_state())
    return copy
