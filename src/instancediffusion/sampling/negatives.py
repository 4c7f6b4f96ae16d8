"""Negative captions: what each instance is not to look like, told to the unconditional half where it is to be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from instancediffusion.sampling.denoiser import Branch, Denoiser
from instancediffusion.sampling.guidance import GuidedBatch, is_guided


@dataclass(frozen=True)
class NegativeCaptions:
    """Where the unconditional prediction of a whole scene is that of an instance's negative caption.

    Guidance moves away from the unconditional prediction u; with weights w_i that sum to at most 1 in each cell it is
    u + sum w_i (u_i - u), with u_i predicted from the negative caption of instance i.

    Attributes:
        where: for each image, by the instance (from 1) that has one, (H, W) weights 0..1.
    """

    where: Sequence[Mapping[int, Tensor]] = field(default_factory=tuple)

    @property
    def rows(self) -> int:
        """Network rows that they cost in each guided call."""
        return sum(len(own) for own in self.where)


class NegativeBatch:
    """Negative captions bound to a denoiser.

    Args:
        denoiser: the network.
        negatives: at least one.
        guidance_scale: of the run.
        max_rows: most rows in one network call.
        device: where the latents are.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        negatives: NegativeCaptions,
        guidance_scale: float,
        max_rows: int,
        device: torch.device,
    ) -> None:
        places = [(image, number) for image, own in enumerate(negatives.where) for number in own]
        where = torch.stack([negatives.where[image][number] for image, number in places])
        self._images = torch.tensor([image for image, _ in places], device=device)
        self._weight = (1 - guidance_scale) * where.to(device)[:, None]
        branches = [Branch(image, conditional=False, negative=number) for image, number in places]
        self._batch = GuidedBatch(denoiser, branches, 1.0, max_rows, halves=(False,))
        self.rows = self._batch.rows if is_guided(guidance_scale) else 0
        """Rows the network computes at each call."""

    def __call__(self, sample: Tensor, unconditional: Tensor, timestep: Tensor, grounding_scale: float) -> Tensor:
        """Compute what is added to the guided predictions of the whole scenes.

        Args:
            sample: (B, C, H, W) as the network sees it.
            unconditional: (B, C, H, W) predictions of the unconditional halves.
            timestep: 0-dim.
            grounding_scale: 0 to 1.

        Returns:
            (B, C, H, W), 0 for images without negative captions.
        """
        found = self._batch(sample[self._images], timestep, grounding_scale)[0]
        away = self._weight.to(found) * (found - unconditional[self._images])
        return torch.zeros_like(unconditional).index_add(0, self._images, away)
