"""Classifier-free guidance, with both halves of all trajectories batched under a bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from instancediffusion.sampling.denoiser import Branch, Denoiser


def guide(conditional: Tensor, unconditional: Tensor, guidance_scale: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022, equation 6 with w + 1 = `guidance_scale`), in float32.

    Half precision would lose most of the small difference that the scale multiplies.
    """
    base = unconditional.float()
    return base + guidance_scale * (conditional.float() - base)


def is_guided(guidance_scale: float) -> bool:
    """Whether a scale asks for guidance. 1 is none, and less counts as none, as in diffusers."""
    return guidance_scale > 1


def rescale(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """Give a guided prediction back the contrast of the conditional one (Lin et al. 2023, section 3.4).

    Args:
        guided: (B, C, H, W).
        conditional: the same shape.
        share: 0 (leaves all as it is) to 1; what is left over is the guided prediction as it was.
    """
    axes = tuple(range(1, guided.dim()))
    contrast = conditional.float().std(axes, keepdim=True) / guided.std(axes, keepdim=True).clamp(min=1e-12)
    return guided * (share * contrast + (1 - share))


def chunk_bounds(rows: int, max_rows: int) -> list[tuple[int, int]]:
    """Cut `rows` rows into the fewest runs of at most `max_rows`, as equal as possible.

    Returns:
        (start, stop) of each run.
    """
    count = -(-rows // max_rows)
    edges = [rows * i // count for i in range(count + 1)] if count else [0]
    return list(pairwise(edges))


class GuidedBatch:
    """A denoiser bound to trajectories that step together; their conditioning is gathered once for all their steps.

    Args:
        denoiser: the network.
        branches: the trajectories; their `conditional` is ignored.
        guidance_scale: 1 or less switches guidance off, and the unconditional half is not computed.
        max_rows: most rows in one network call, 1 or more.
        rescaled: share of `rescale`.
        halves: the halves to compute, in place of those that the scale asks for; of one alone all results are its own.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        branches: Sequence[Branch],
        guidance_scale: float,
        max_rows: int,
        rescaled: float = 0.0,
        halves: tuple[bool, ...] | None = None,
    ) -> None:
        self._scale, self._rescaled = guidance_scale, rescaled
        self._halves = halves or ((True, False) if is_guided(guidance_scale) else (True,))
        # One half after the other, not row by row: rows of a kind carry tokens of about the same number, and a call
        # pads all of its rows to the widest.
        rows = [replace(b, conditional=half) for half in self._halves for b in branches]
        self._bounds = chunk_bounds(len(rows), max_rows)
        self._bound = [denoiser.bind(rows[i:j]) for i, j in self._bounds]
        self.rows = len(rows)
        """Rows the network computes at each call."""

    def __call__(self, sample: Tensor, timestep: Tensor, grounding_scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """Predict for every trajectory.

        Args:
            sample: (T, C, H, W), one latent for each trajectory.
            timestep: 0-dim.
            grounding_scale: 0 to 1, for the unconditional half too (as published: it then sees null tokens).

        Returns:
            The guided prediction and those of the conditional and the unconditional half, (T, C, H, W) float32 each;
            without guidance all three are the same.
        """
        rows = sample.repeat(len(self._halves), 1, 1, 1)
        predicted = torch.cat(
            [
                bound(rows[i:j], timestep, grounding_scale)
                for bound, (i, j) in zip(self._bound, self._bounds, strict=True)
            ]
        )
        if len(self._halves) == 1:
            only = predicted.float()
            return only, only, only
        conditional, unconditional = predicted.chunk(2)
        guided = guide(conditional, unconditional, self._scale)
        if self._rescaled:
            guided = rescale(guided, conditional, self._rescaled)
        return guided, conditional.float(), unconditional.float()
