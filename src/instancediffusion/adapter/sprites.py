"""Sprites: a small learned picture of every caption, laid into the scene back to front (ours; not in the paper).

What an object looks like at a place in it is too rough a function for a plain network of caption and place, and too
much to ask of attention in a short training. Linear in the caption's feature, as a whole little picture, it is learned
within minutes. The picture has a coverage of its own, so that who hides whom is decided by outlines, not by boxes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from instancediffusion.conditioning import LocationTensors
from instancediffusion.conditioning.order import nearer

SIDE = 24
"""Texels of a sprite on each axis."""
CHANNELS = 8
FINEST = 1 - 1e-4
"""Largest coverage, which keeps logarithms finite."""


class Sprites(nn.Module):
    """Sprites of captions, painted on a raster."""

    def __init__(self, caption_dim: int) -> None:
        """Build the sprites for pooled caption features of a width."""
        super().__init__()
        self.width = 2 * CHANNELS + 1
        self.texels = nn.Linear(caption_dim, (CHANNELS + 1) * SIDE * SIDE)
        self.turn = nn.Linear(caption_dim, 1)
        self.scale = 2 / math.sqrt(caption_dim)
        with torch.no_grad():
            self.turn.bias.fill_(1.0)
            self.texels.bias.view(CHANNELS + 1, -1)[-1].fill_(1.0)

    def forward(
        self, locations: LocationTensors, captions: Tensor, extents: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Paint B scenes.

        Args:
            locations: N slots; says who is in front, and where masks are, which stand in for the learned outline.
            captions: (B, N, caption_dim) pooled caption features.
            extents: (B, N, 4) xyxy, fractions of the canvas: where each sprite is laid.
            size: (height, width) of the raster.

        Returns:
            (B, width, height, width) raster, the last channel of which is what all instances cover; and
            (B, N, height, width) share of each instance in what is seen, 0..1. Both float32.
        """
        sprites = self._sprites(captions)
        with torch.autocast(captions.device.type, enabled=False):
            rows, columns = (_resampling(extents.float(), axis, size[1 - axis]) for axis in (1, 0))
            laid = torch.einsum("bnyi,bncij,bnxj->bncyx", rows, sprites.float(), columns)
            inside = (rows.sum(-1)[..., None] * columns.sum(-1)[..., None, :]) * locations.used[..., None, None]
            texels, outline = laid.split((2 * CHANNELS, 1), 2)
            cover = _masked(outline.squeeze(2).sigmoid() * inside, locations, size).clamp(max=FINEST)
            seen = cover * _unhidden(cover, nearer(locations))
            raster = (seen[:, :, None] * texels).sum(1)
            return torch.cat([raster, seen.sum(1, keepdim=True)], 1), seen

    def outlines(self, captions: Tensor) -> Tensor:
        """What of its extent each sprite covers, (B, N, SIDE, SIDE) float32, 0..1."""
        return self._sprites(captions)[:, :, -1].float().sigmoid()

    @torch.no_grad()
    def face(self, left: Tensor, right: Tensor) -> None:
        """Let sprites turn by what captions say of the side, before anything is learned.

        Started from one side for all, the turn is learned late, and not at all for many kinds of objects: as long as it
        is alike for both sides, what is odd in a sprite has no mean gradient, and without that the turn has none.

        Args:
            left: (K, caption_dim) features of captions.
            right: (K, caption_dim) of the same captions with the other side.
        """
        apart = (left - right).mean(0)
        weight = 2 * apart / apart.square().sum() / self.scale
        self.turn.weight.copy_(weight)
        self.turn.bias.copy_(-((left + right) / 2 * self.scale @ weight).mean())

    def _sprites(self, captions: Tensor) -> Tensor:
        """(B, N, width, SIDE, SIDE): turned as the caption says, then what turning changes, then the outline.

        A caption that does not say which way its object looks gets the mean of both ways, beside which the difference
        lets later layers choose.
        """
        told = captions.to(self.texels.weight.dtype) * self.scale
        drawn = self.texels(told).unflatten(-1, (CHANNELS + 1, SIDE, SIDE))
        even, odd = (drawn + drawn.flip(-1)) / 2, (drawn - drawn.flip(-1)) / 2
        turned = even + self.turn(told).tanh()[..., None, None] * odd
        colours, outline = turned.split((CHANNELS, 1), 2)
        return torch.cat([colours, odd[:, :, :CHANNELS], outline], 2)


def _resampling(extents: Tensor, axis: int, count: int) -> Tensor:
    """(B, N, count, SIDE) weights that read a row of texels at the raster's positions along an axis (0 = x, 1 = y).

    Linear interpolation where the sprite is enlarged, a wider tent where it shrinks; zeros outside of the extent, whose
    border fades over one position.
    """
    low, length = extents[..., axis, None], (extents[..., axis + 2] - extents[..., axis])[..., None].clamp(min=1e-3)
    place = (torch.arange(count, device=extents.device) + 0.5) / count
    texel = (place - low) / length * SIDE - 0.5
    pace = (SIDE / count / length).clamp(min=1.0)
    at = texel[..., None] - torch.arange(SIDE, device=extents.device)
    tent = (1 - at.abs() / pace[..., None]).clamp(min=0)
    tent = tent / tent.sum(-1, keepdim=True).clamp(min=1e-6)
    border = torch.minimum(place - low, low + length - place) * count + 0.5
    return tent * border.clamp(0, 1)[..., None]


def _masked(cover: Tensor, locations: LocationTensors, size: tuple[int, int]) -> Tensor:
    """Cover by the mask where there is one: it says what the outline would have to guess."""
    bitmaps = locations.segmentations
    if bitmaps is None or not bitmaps.numel():
        return cover
    drawn = functional.adaptive_avg_pool2d(bitmaps.to(cover.dtype), size)
    given = locations.present["mask"] & drawn.flatten(2).any(-1)
    return torch.where(given[..., None, None], drawn, cover)


def _unhidden(cover: Tensor, front: Tensor) -> Tensor:
    """(B, N, h, w): how much of each instance is not hidden, the product over all j of 1 - front_ij cover_j.

    As matrix products of logarithms, since `front` has the values 0, 1/2 and 1 only.
    """
    flat = cover.flatten(2)
    hidden = (front == 1).float() @ torch.log1p(-flat) + (front == 0.5).float() @ torch.log1p(-0.5 * flat)
    return hidden.exp().unflatten(-1, cover.shape[-2:])
