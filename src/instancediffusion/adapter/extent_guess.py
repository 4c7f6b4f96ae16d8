"""A guess of the extent of instances that are told by a point or a stroke only (ours; not in the paper)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from instancediffusion.conditioning import LocationTensors
from instancediffusion.conditioning.extents import known_extents
from instancediffusion.conditioning.order import nearer

HIDDEN = 128
FLOOR = 0.05
"""Smallest standard deviation: where extents follow exactly, ever larger gradients would undo what is learned."""
GROWTH = (0.5, 0.75, 1.0, 1.25, 1.5)
"""By how many standard deviations the sides of an instance are guessed larger if its depth order is stated. Whoever
states one expects an overlap, and of two things drawn apart none is in front: the first of these at which it and an
instance of another rank meet, if both grow alike; or the first of all if there is none to meet."""
MEETING = 0.25
"""Share of the smaller box that two that meet have in common: things fill their boxes by two thirds or so."""


class ExtentGuess(nn.Module):
    """A normal distribution of the extent, given caption and stroke; the guess is its mean, or `GROWTH` more."""

    def __init__(self, caption_dim: int) -> None:
        """Build the network for pooled caption features of a width."""
        super().__init__()
        self.scale = 2 / math.sqrt(caption_dim)
        self.mlp = nn.Sequential(nn.Linear(caption_dim + 5, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 8))

    def forward(self, locations: LocationTensors, captions: Tensor) -> Tensor:
        """Extents of all instances. Those of stated order are guessed large enough to meet another one, if that helps.

        Args:
            locations: N slots of B images.
            captions: (B, N, caption_dim) pooled caption features.

        Returns:
            (B, N, 4) float32 xyxy, fractions of the canvas: as told, and the guess where they are not. A guess holds
            all of the point or stroke, and lies on the canvas.
        """
        mean, spread = self._read(locations, captions)
        if locations.slots < 2:  # nobody to meet; and there are scenes without any instance
            return _extents(locations, mean, spread, GROWTH[0] * locations.z_known)
        behind = nearer(locations) == 1
        stated = behind | behind.transpose(1, 2)
        needed = torch.full(stated.shape, math.inf, device=stated.device)
        for step in reversed(GROWTH):
            met = _common(_extents(locations, mean, spread, step * locations.z_known)) >= MEETING
            needed = torch.where(met & stated, step, needed)
        # Each instance meets the one that it meets first, and those that meet it first.
        first = (needed == needed.amin(-1, keepdim=True)) & needed.isfinite()
        partners = first | first.transpose(1, 2)
        larger = torch.where(partners, needed, GROWTH[0]).amax(-1) * locations.z_known
        return _extents(locations, mean, spread, larger)

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


def _extents(locations: LocationTensors, mean: Tensor, spread: Tensor, larger: Tensor) -> Tensor:
    """(B, N, 4): as told, or else as guessed; `larger` (B, N) standard deviations are added to the sides."""
    told, known = known_extents(locations)
    low, high = told.unflatten(-1, (2, 2)).unbind(-2)
    sides = mean[..., :2] + larger[..., None] * spread[..., :2]
    centre, half = (low + high) / 2 + mean[..., 2:], sides.clamp(-6, 0).exp() / 2
    guess_low = torch.minimum(centre - half, low).clamp(min=0)
    guess_high = torch.maximum(centre + half, high).clamp(max=1)
    return torch.where(known[..., None], told, torch.cat([guess_low, guess_high], -1))


def _common(boxes: Tensor) -> Tensor:
    """Of each two of (B, N, 4) boxes, the share of the smaller one that lies in the other, (B, N, N)."""
    low, high = boxes.unflatten(-1, (2, 2)).unbind(-2)
    area = (high - low).prod(-1)
    shared_low = torch.maximum(low[:, :, None], low[:, None])
    shared_high = torch.minimum(high[:, :, None], high[:, None])
    shared = (shared_high - shared_low).clamp(min=0).prod(-1)
    return shared / torch.minimum(area[:, :, None], area[:, None]).clamp(min=1e-9)
