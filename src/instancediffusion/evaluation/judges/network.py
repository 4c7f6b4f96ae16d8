"""The judge's network: a small U-net over cells of 4x4 pixels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from .blocks import ChannelNorm, Residual
from .config import CELL_PX, JudgeConfig
from .reader import ReaderNetwork

START_SIDE = 0.15
"""Distance from a cell to the sides of its object's box that an untrained network guesses, share of the picture."""


@dataclass(frozen=True)
class Answer:
    """What the network says of B pictures, for each cell of the (g, g) map.

    Attributes:
        kind: (B, K + 1, g, g) logits; 0 is "no object". With a reader K is 1: an object.
        colour: (B, C, g, g) logits; C is 0 with a reader.
        facing: (B, F, g, g) logits; F is 0 with a reader.
        box: (B, 4, g, g) x0 y0 x1 y1, fractions of the picture: the box of the whole object a cell belongs to.
        quality: (B, g, g) logit: how well that box will fit.
        object: (B, 1, 2g, 2g) logits: there is an object, at twice the resolution.
        hidden: (B, D, g, g) the last layer.
    """

    kind: Tensor
    colour: Tensor
    facing: Tensor
    box: Tensor
    quality: Tensor
    object: Tensor
    hidden: Tensor


class JudgeNetwork(nn.Module):
    """Pictures to an `Answer`.

    Args:
        config: sizes and words.
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
        # The cell's own colour is told beside what was made of it.
        self.last = nn.Conv2d(widths[0] + 3, config.hidden, 1)
        # Where a reader says what an object is, cells say that there is one.
        self.parts = (*((2, 0, 0) if config.crop_px else config.words), 4, 1, 4)
        self.head = nn.Conv2d(config.hidden, sum(self.parts), 1)
        with torch.no_grad():
            self.head.weight.mul_(0.1)
        bias, first = torch.zeros(sum(self.parts)), sum(self.parts[:3])
        bias[first : first + 4] = torch.tensor(START_SIDE).expm1().log()
        self.head.bias = nn.Parameter(bias)
        self.reader = ReaderNetwork(config) if config.crop_px else None

    def forward(self, images: Tensor) -> Answer:
        """Answer for pictures (B, 3, S, S), -1..1; S is a multiple of 32."""
        cells = functional.pixel_unshuffle(images, CELL_PX)
        x = self.stem(cells)
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
        kind, colours, facing, sides, quality, fine = self.head(hidden).float().split(self.parts, 1)
        return Answer(
            kind, colours, facing, boxes_of(sides), quality[:, 0], functional.pixel_shuffle(fine, 2), hidden.float()
        )


def boxes_of(sides: Tensor) -> Tensor:
    """Turn distances to left, top, right, bottom before softplus (B, 4, g, g) into boxes around the cells' centres."""
    grid = sides.shape[-1]
    at = (torch.arange(grid, dtype=sides.dtype, device=sides.device) + 0.5) / grid
    x, y = at[None, None, :].expand(len(sides), grid, grid), at[None, :, None].expand(len(sides), grid, grid)
    left, top, right, bottom = functional.softplus(sides).unbind(1)
    return torch.stack([x - left, y - top, x + right, y + bottom], 1)
