"""What a sampler needs of a network: a way to ask for some rows of a batch, step after step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Branch:
    """One row of a network call: which image, which trajectory of it, which half of the guidance.

    Attributes:
        image: index of the image in the batch, from 0.
        trajectory: 0 = the whole scene; i = instance i alone, counted from 1.
        conditional: True for the half that sees prompt and instances, False for the half that sees the negative
            prompt and no instance.
        swapped: the scene is told in the reversed depth order, see `OrderGuidance`.
        negative: in an unconditional half, the instance (from 1) whose negative caption it sees; 0 = the scene's.
    """

    image: int
    trajectory: int = 0
    conditional: bool = True
    swapped: bool = False
    negative: int = 0


class Prediction(Protocol):
    """A network bound to fixed rows."""

    def __call__(self, sample: Tensor, timestep: Tensor, grounding_scale: float) -> Tensor:
        """Predict what the model was trained to predict (noise or velocity).

        Args:
            sample: (R, C, H, W), one row for each branch bound, scaled as the network was trained.
            timestep: 0-dim, the same for all rows.
            grounding_scale: 0 (instances switched off) to 1.

        Returns:
            (R, C, H, W).
        """
        ...


class Denoiser(Protocol):
    """Gathers the conditioning of some branches once, for as many steps as they run together."""

    def bind(self, branches: Sequence[Branch]) -> Prediction:
        """Return the network with the conditioning of `branches`, in that order."""
        ...
