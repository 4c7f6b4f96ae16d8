"""Denoisers with known answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from instancediffusion.choices import SCHEDULERS
from instancediffusion.sampling import Branch, Guidance, Steps, sample_multi_instance

SIZE = (4, 8, 8)


def run_scenes(
    network, scheduler, noise, steps, *, guidance=1.0, max_rows=8, negatives=(), order=(None, 0.0, 0), **more
):
    """The Multi-instance Sampler with guidance: of a scale, of negative captions, of order (where, scale, steps)."""
    chosen = Guidance(guidance, None, 0.0, negatives, *order, max_rows)
    return sample_multi_instance(partial(chosen.denoiser, network), scheduler, noise, Steps(steps), **more)


def betas() -> Tensor:
    return torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2


def alphas() -> Tensor:
    return torch.cumprod(1 - betas(), 0)


@dataclass
class PointMass:
    """The exact noise predictor of a data set that holds one picture for each (image, trajectory).

    Conditional rows aim at `targets[image, trajectory]`, unconditional ones at 0. `gain` bends the prediction in the
    first six steps, so that the path depends on the solver and on its history.
    """

    targets: dict[tuple[int, int], Tensor]
    gain: float = 0.0
    bound: list[list[Branch]] = field(default_factory=list)
    calls: list[tuple[int, float, int]] = field(default_factory=list)

    def bind(self, branches: Sequence[Branch]):
        self.bound.append(list(branches))
        aims = torch.stack(
            [self.targets[b.image, b.trajectory] if b.conditional else torch.zeros(SIZE) for b in branches]
        )

        def predict(sample: Tensor, timestep: Tensor, step: int) -> Tensor:
            self.calls.append((len(sample), float(timestep), step))
            a = alphas()[timestep.long()].float()
            eps = (sample - a.sqrt() * aims) / (1 - a).sqrt()
            return eps + self.gain * torch.sin(3 * sample) * (step < 6)

        return predict

    @property
    def rows(self) -> int:
        """Rows that were computed."""
        return sum(rows for rows, _, _ in self.calls)


def targets(counts: Sequence[int], seed: int = 0) -> dict[tuple[int, int], Tensor]:
    """One random target for the whole scene and each instance of each image."""
    generator = torch.Generator().manual_seed(seed)
    return {
        (image, index): torch.randn(SIZE, generator=generator)
        for image, count in enumerate(counts)
        for index in range(count + 1)
    }


KINDS = tuple({kind.scheduler: name for name, kind in reversed(SCHEDULERS.items())}.values())
"""One name for each class of scheduler."""
