"""The judge's networks: a detector, a small U-Net over patches of 4x4 pixels, and the reader of each detection."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from .blocks import ChannelNorm, Residual
from .judge_config import CELL_PX, JudgeConfig
from .reader import ReaderNetwork

START_SIDE = 0.15
"""Initial prediction of the distance from a position to the sides of its object's box, fraction of the picture."""


@dataclass(frozen=True)
class Answer:
    """Predictions of the detector for B pictures, at each position of the (g, g) feature map.

    Attributes:
        there: (B, 2, g, g) logits: no object, an object.
        box: (B, 4, g, g) x0 y0 x1 y1, fractions of the picture: the amodal box of the object at the position.
        quality: (B, g, g) logit: the predicted IoU of that box.
        object: (B, 1, 2g, 2g) logits: there is an object, at twice the resolution.
        hidden: (B, D, g, g) features of the last layer.
    """

    there: Tensor
    box: Tensor
    quality: Tensor
    object: Tensor
    hidden: Tensor


class JudgeNetwork(nn.Module):
    """Pictures to an `Answer`, and beside it the `reader`.

    Args:
        config: sizes, classes and attributes.
    """

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.stem = nn.Conv2d(3 * CELL_PX**2, widths[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.levels = nn.ModuleList(
            nn.Sequential(*(Residual(width) for _ in range(depth)))
            for width, depth in zip(widths, config.depths, strict=True)
        )
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.back = nn.ModuleList(Residual(width) for width in widths[:2])
        self.norm = ChannelNorm(widths[0])
        # The mean colour of the patch is appended to its features.
        self.last = nn.Conv2d(widths[0] + 3, config.hidden, 1)
        self.parts = (2, 4, 1, 4)
        self.head = nn.Conv2d(config.hidden, sum(self.parts), 1)
        with torch.no_grad():
            self.head.weight.mul_(0.1)
        bias = torch.zeros(sum(self.parts))
        bias[2:6] = torch.tensor(START_SIDE).expm1().log()
        self.head.bias = nn.Parameter(bias)
        self.reader = ReaderNetwork(config)

    def forward(self, images: Tensor) -> Answer:
        """Predict for pictures (B, 3, S, S), -1..1; S is a multiple of 32."""
        x = self.stem(functional.pixel_unshuffle(images, CELL_PX))
        steps = []
        for number, level in enumerate(self.levels):
            x = level(x if number == 0 else self.down[number - 1](x))
            steps.append(x)
        for number in reversed(range(3)):
            x = steps[number] + functional.interpolate(self.up[number](x), scale_factor=2.0, mode="nearest")
            if number < 2:
                x = self.back[number](x)
        colour = functional.avg_pool2d(images, CELL_PX).to(x.dtype)
        hidden = functional.silu(self.last(torch.cat([self.norm(x), colour], 1)))
        there, sides, quality, fine = self.head(hidden).float().split(self.parts, 1)
        return Answer(there, boxes_of(sides), quality[:, 0], functional.pixel_shuffle(fine, 2), hidden.float())


def boxes_of(sides: Tensor) -> Tensor:
    """Turn distances to left, top, right, bottom before softplus (B, 4, g, g) into boxes around patch centres."""
    grid = sides.shape[-1]
    at = (torch.arange(grid, dtype=sides.dtype, device=sides.device) + 0.5) / grid
    x, y = at[None, None, :].expand(len(sides), grid, grid), at[None, :, None].expand(len(sides), grid, grid)
    left, top, right, bottom = functional.softplus(sides).unbind(1)
    return torch.stack([x - left, y - top, x + right, y + bottom], 1)
