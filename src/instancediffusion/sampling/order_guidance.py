"""Counterfactual order guidance: away from the picture in which the same instances stand the other way round."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from instancediffusion.sampling.denoiser import Branch, Denoiser
from instancediffusion.sampling.guidance import GuidedBatch


@dataclass(frozen=True)
class OrderGuidance:
    """What is added to the prediction: `scale * where * (asked order - reversed order)`, of conditional halves.

    All but the order is the same in the two, so their difference is what the order does. Late steps draw details, on
    which a reversed order has no say, so it acts in the early ones.

    Attributes:
        scale: strength, above 0.
        steps: number of steps it acts in, from the start.
        where: (B, H, W), 0..1: where instances of stated order overlap. Images where that is nowhere cost nothing.
    """

    scale: float
    steps: int
    where: Tensor

    @property
    def images(self) -> tuple[int, ...]:
        """The images it acts on."""
        return tuple(row for row, shared in enumerate(self.where) if bool(shared.any())) if self.steps else ()


class OrderBatch:
    """Order guidance bound to a denoiser, for the steps it acts in.

    Args:
        denoiser: the network.
        guidance: on at least one image.
        max_rows: most rows in one network call.
        device: where the latents are.
    """

    def __init__(self, denoiser: Denoiser, guidance: OrderGuidance, max_rows: int, device: torch.device) -> None:
        images = list(guidance.images)
        self._images = torch.tensor(images, device=device)
        self._weight = guidance.scale * guidance.where[images].to(device)[:, None]
        branches = [Branch(image, swapped=True) for image in images]
        self._swapped = GuidedBatch(denoiser, branches, 1.0, max_rows)
        self.rows = self._swapped.rows
        """Rows the network computes at each call."""

    def __call__(self, sample: Tensor, conditional: Tensor, timestep: Tensor, grounding_scale: float) -> Tensor:
        """Compute what is added to the predictions of the whole scenes.

        Args:
            sample: (B, C, H, W) as the network sees it.
            conditional: (B, C, H, W) predictions of the conditional halves.
            timestep: 0-dim.
            grounding_scale: 0 to 1.

        Returns:
            (B, C, H, W), 0 for images it does not act on.
        """
        other, _, _ = self._swapped(sample[self._images], timestep, grounding_scale)
        added = conditional.new_zeros(conditional.shape)
        added[self._images] = self._weight.to(other) * (conditional[self._images] - other)
        return added
