"""What a sampler calls: a denoiser. And what denoisers are made of: a network with the conditioning of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Branch:
    """One batch element of a network call: which image, which trajectory of it, which branch of the guidance.

    Attributes:
        image: index of the image in the batch, from 0.
        trajectory: 0 = the whole scene; i = the per-instance branch of instance i, counted from 1.
        conditional: True for the conditional branch, which sees prompt and instances; False for the unconditional one,
            which sees the negative prompt and no instance.
        swapped: the scene is given in the reversed depth order, see `OrderGuidance`.
        negative: in an unconditional branch, the instance (from 1) whose negative caption it sees; 0 = the scene's.
    """

    image: int
    trajectory: int = 0
    conditional: bool = True
    swapped: bool = False
    negative: int = 0


class Denoiser(Protocol):
    """What predicts noise (or velocity) for a fixed batch: a network with its conditioning, or guidance round one."""

    def __call__(self, sample: Tensor, timestep: Tensor, step: int) -> Tensor:
        """Predict what the model was trained to predict.

        Args:
            sample: (T, C, H, W) noisy latents, scaled as the network was trained.
            timestep: 0-dim, the noise level, the same for the whole batch.
            step: index of the step that is made, from 0. Two calls of one step have the same.

        Returns:
            (T, C, H, W).
        """
        ...


class Network(Protocol):
    """A network with the conditioning of a run, of which each batch element of a call sees a part."""

    def bind(self, branches: Sequence[Branch]) -> Denoiser:
        """Gather the conditioning of `branches`, once for all calls: the denoiser of that batch, in that order."""
        ...
