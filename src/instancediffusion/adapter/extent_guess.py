"""A guess of the extent of instances that are told by a point or a stroke only (ours; not in the paper)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from instancediffusion.conditioning import LocationTensors
from instancediffusion.conditioning.extents import known_extents

from .extent_fit import fitted_extents

HIDDEN = 128
FLOOR = 0.05
"""Smallest standard deviation: where extents follow exactly, ever larger gradients would undo what is learned."""
ORDERED = 0.5
"""By how many standard deviations the sides of an instance are guessed larger if its depth order is stated: whoever
states one expects an overlap, and of two things drawn apart none is in front."""


class ExtentGuess(nn.Module):
    """A normal distribution of the extent, given caption and stroke; its mean is the guess, but for depth order.

    If an order is stated, it is a little more (`ORDERED`); with outlines it is fitted to them (`extent_fit`).
    """

    def __init__(self, caption_dim: int) -> None:
        """Build the network for pooled caption features of a width."""
        super().__init__()
        self.scale = 2 / math.sqrt(caption_dim)
        self.mlp = nn.Sequential(nn.Linear(caption_dim + 5, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 8))

    def forward(self, locations: LocationTensors, captions: Tensor, outlines: Tensor | None = None) -> Tensor:
        """Extents of all instances.

        Args:
            locations: N slots of B images.
            captions: (B, N, caption_dim) pooled caption features.
            outlines: (B, N, S, S) what of its extent each instance covers, to fit guesses to; see `fitted_extents`.

        Returns:
            (B, N, 4) float32 xyxy, fractions of the canvas: as told, and the guess where they are not. A guess holds
            all of the point or stroke, and lies on the canvas.
        """
        told, known = known_extents(locations)
        low, high = told.unflatten(-1, (2, 2)).unbind(-2)
        mean, spread = self._read(locations, captions)
        sides = mean[..., :2] + ORDERED * spread[..., :2] * locations.z_known[..., None]
        centre, sides = (low + high) / 2 + mean[..., 2:], sides.clamp(-6, 0).exp()
        if outlines is None:
            guess_low = torch.minimum(centre - sides / 2, low).clamp(min=0)
            guess_high = torch.maximum(centre + sides / 2, high).clamp(max=1)
            guess = torch.cat([guess_low, guess_high], -1)
        else:
            guess = fitted_extents(centre, sides, spread, outlines, locations)
        return torch.where(known[..., None], told, guess)

    def loss(self, locations: LocationTensors, captions: Tensor, boxes: Tensor) -> Tensor:
        """Mean negative log-likelihood of the true boxes (B, N, 4), over instances without a known extent."""
        told, known = known_extents(locations)
        guessed = (locations.used & ~known)[..., None].float()
        centre = told.unflatten(-1, (2, 2)).mean(-2)
        low, high = boxes.unflatten(-1, (2, 2)).unbind(-2)
        true = torch.cat([(high - low).clamp(min=1e-3).log(), (low + high) / 2 - centre], -1)
        mean, spread = self._read(locations, captions)
        each = ((true - mean) / spread).square() / 2 + spread.log()
        return (each * guessed).sum() / guessed.sum().clamp(min=1)

    def _read(self, locations: LocationTensors, captions: Tensor) -> tuple[Tensor, Tensor]:
        """Means and standard deviations (B, N, 4) of the logarithms of the sides and of the offset of the centre."""
        told, _ = known_extents(locations)
        scribbled = locations.present["scribble"][..., None].float()
        dtype = next(self.mlp.parameters()).dtype
        given = torch.cat([captions.float() * self.scale, told, scribbled], -1).to(dtype)
        mean, spread = self.mlp(given).float().chunk(2, -1)
        return mean + mean.new_tensor([-1.0, -1.0, 0.0, 0.0]), FLOOR + 0.5 * spread.clamp(-6, 2).exp()
