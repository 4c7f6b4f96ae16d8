"""The segmentation input: all masks of an image as one stack of bitmaps, read by a ConvNeXt (paper, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from instancediffusion.conditioning import LocationTensors

_STRIDE = 32  # total downsampling of the four stages


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of (B, C, H, W) maps."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> same shape."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """One block of "A ConvNet for the 2020s" (Liu et al., 2022, figure 4)."""

    def __init__(self, width: int) -> None:
        """`width`: channels in and out."""
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        self.layer_scale = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> same shape."""
        hidden = self.norm(self.depthwise(features).permute(0, 2, 3, 1))
        hidden = self.contract(functional.gelu(self.expand(hidden))) * self.layer_scale
        return features + hidden.permute(0, 3, 1, 2)


class MaskEncoder(nn.Module):
    """Bitmaps of all instances of an image -> a fixed number of feature rows.

    The rows come from a plain reshape of the (C, h, w) feature map to (C h w / T, T): a row mixes values of the map
    that are `T` apart in memory and is no square patch. It looks unintended, but the published weights rely on it.
    """

    def __init__(
        self,
        channels: int = 30,
        size: int = 512,
        tokens: int = 64,
        widths: Sequence[int] = (96, 192, 384, 768),
        depths: Sequence[int] = (3, 3, 9, 3),
    ) -> None:
        """Build the encoder.

        Args:
            channels: bitmaps of an image (the published model has 30 slots).
            size: side of the bitmaps in pixels, a multiple of 32.
            tokens: T, rows returned; divides the size of the last feature map.
            widths: channels of the four stages.
            depths: blocks of the four stages.
        """
        super().__init__()
        if size % _STRIDE:
            raise ValueError(f"size: {size} is not a multiple of {_STRIDE}")
        values = widths[-1] * (size // _STRIDE) ** 2
        if values % tokens:
            raise ValueError(f"tokens: {tokens} does not divide the {values} values of the last feature map")
        self.channels, self.size, self.tokens = channels, size, tokens
        self.features = values // tokens
        self.merge = nn.Conv2d(channels, 3, 3, padding=1)
        stem = nn.Sequential(nn.Conv2d(3, widths[0], 4, stride=4), ChannelNorm(widths[0], eps=1e-6))
        between = [
            nn.Sequential(ChannelNorm(narrow, eps=1e-6), nn.Conv2d(narrow, wide, 2, stride=2))
            for narrow, wide in pairwise(widths)
        ]
        self.downsamplers = nn.ModuleList([stem, *between])
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvNeXtBlock(width) for _ in range(depth)))
            for width, depth in zip(widths, depths, strict=True)
        )
        self.null_feature = nn.Parameter(torch.zeros(self.features))
        self.position = nn.Parameter(torch.empty(1, tokens, self.features).normal_(std=0.02))

    def forward(self, locations: LocationTensors) -> Tensor:
        """Feature rows (B, T, features); images without masks get the null feature and are not encoded."""
        drawn = self._stack(locations)
        rows = self.null_feature.expand(locations.batch_size, self.tokens, -1)
        if drawn is not None:
            images, bitmaps = drawn
            rows = rows.clone()
            rows[images] = self.encode(bitmaps).to(rows.dtype)
        return rows + self.position

    def encode(self, bitmaps: Tensor) -> Tensor:
        """(B, channels, size, size) float bitmaps -> (B, T, features), without the position."""
        hidden = self.merge(bitmaps)
        for downsample, stage in zip(self.downsamplers, self.stages, strict=True):
            hidden = stage(downsample(hidden))
        return hidden.reshape(len(bitmaps), self.features, self.tokens).transpose(1, 2)

    def _stack(self, locations: LocationTensors) -> tuple[Tensor, Tensor] | None:
        """The images that have masks, and their bitmaps by channel; None where there is none."""
        if locations.segmentations is None:
            return None
        channel = locations.segmentation_channel
        drawn = locations.present["mask"] & (channel >= 0) & (channel < self.channels)
        images = drawn.any(1).nonzero()[:, 0]
        if not len(images):
            return None
        stack = self.merge.weight.new_zeros(len(images), self.channels, self.size, self.size)
        for position, image in enumerate(images.tolist()):
            slots = drawn[image].nonzero()[:, 0]
            bitmaps = locations.segmentations[image, slots].to(stack.dtype)
            if bitmaps.shape[-1] != self.size:
                bitmaps = functional.interpolate(bitmaps[None], size=(self.size, self.size), mode="nearest")[0]
            stack[position, channel[image, slots]] = bitmaps
        filled = stack.flatten(1).any(1)  # a stack of empty masks counts as none (published image gate)
        return (images[filled], stack[filled]) if filled.any() else None
