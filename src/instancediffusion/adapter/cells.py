"""Cell features: what a cell of a feature map shows, as far as the scene says so (ours; not in the paper)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from instancediffusion.adapter.extent_guess import ExtentGuess
from instancediffusion.adapter.sprites import Sprites
from instancediffusion.conditioning import LocationTensors
from instancediffusion.conditioning.extents import known_extents
from instancediffusion.conditioning.frames import FRAME_FEATURES, cell_frames

FINER = 4
"""Raster positions on each side of a cell."""


class CellFeatures(nn.Module):
    """The sprites that lie in a cell, its frame in their instances, and a small network's view of all that.

    A picture of an object is a function of its name and of the place in it. Attention to grounding tokens gives every
    cell of an instance the same answer and leaves the place to later layers; here both meet. It depends on neither x
    nor the time step: once per scene and size of map.
    """

    def __init__(self, caption_dim: int, hidden_dim: int, outputs: int) -> None:
        """Build the networks.

        Args:
            caption_dim: width of the pooled caption features.
            hidden_dim: width of the hidden layers.
            outputs: width of the network's view.
        """
        super().__init__()
        self.sprites = Sprites(caption_dim)
        self.extents = ExtentGuess(caption_dim)
        placed = self.sprites.width * FINER * FINER + FRAME_FEATURES
        self.width = placed + outputs
        self.mlp = nn.Sequential(
            nn.Linear(placed + caption_dim, hidden_dim),
            nn.SiLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.SiLU(),
            nn.Linear(hidden_dim, outputs),
        )

    def extents_of(self, locations: LocationTensors, captions: Tensor) -> Tensor:
        """How far the instances reach, (B, N, 4) xyxy: as told, else guessed; once trained, guesses fit the sprites."""
        guessed = locations.used & ~known_extents(locations)[1]
        outlines = self.sprites.outlines(captions) if not self.training and guessed.any() else None
        extents: Tensor = self.extents(locations, captions, outlines)
        return extents

    def forward(self, locations: LocationTensors, captions: Tensor, extents: Tensor, size: tuple[int, int]) -> Tensor:
        """Features of B images.

        Args:
            locations: where the instances are, N slots.
            captions: (B, N, caption_dim) pooled caption features.
            extents: (B, N, 4) how far they reach, see `extents_of`.
            size: (height, width) of the feature map in cells; L = height * width.

        Returns:
            (B, L, width); zeros for cells without an instance.
        """
        height, width = size
        raster, seen = self.sprites(locations, captions, extents, (height * FINER, width * FINER))
        fine = functional.pixel_unshuffle(raster, FINER).flatten(2).transpose(1, 2)
        shares = functional.avg_pool2d(seen, FINER).flatten(2).transpose(1, 2) if seen.shape[1] else fine[..., :0]
        frames = torch.einsum("bln,blnf->blf", shares, cell_frames(extents, known_extents(locations)[1], size))
        dtype = next(self.mlp.parameters()).dtype
        placed = torch.cat([fine, frames], -1).to(dtype)
        covered = shares.sum(-1, keepdim=True).to(dtype)
        view = self.mlp(torch.cat([placed, shares.to(dtype) @ captions.to(dtype)], -1)) * covered
        return torch.cat([placed, view.to(dtype)], -1)
