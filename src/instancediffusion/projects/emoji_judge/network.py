"""The judge's networks: a small U-net over cells of 4x4 pixels that finds objects, and the reader of each of them."""

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
"""Distance from a cell to the sides of its object's box that an untrained network guesses, share of the picture."""


@dataclass(frozen=True)
class Answer:
    """What the first network says of B pictures, for each cell of the (g, g) map.

    Attributes:
        there: (B, 2, g, g) logits: no object, an object.
        box: (B, 4, g, g) x0 y0 x1 y1, fractions of the picture: the box of the whole object a cell belongs to.
        quality: (B, g, g) logit: how well that box will fit.
        object: (B, 1, 2g, 2g) logits: there is an object, at twice the resolution.
        hidden: (B, D, g, g) the last layer.
    """

    there: Tensor
    box: Tensor
    quality: Tensor
    object: Tensor
    hidden: Tensor


class JudgeNetwork(nn.Module):
    """Pictures to an `Answer`, and beside it the `reader`.

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
        self.parts = (2, 4, 1, 4)
        self.head = nn.Conv2d(config.hidden, sum(self.parts), 1)
        with torch.no_grad():
            self.head.weight.mul_(0.1)
        bias = torch.zeros(sum(self.parts))
        bias[2:6] = torch.tensor(START_SIDE).expm1().log()
        self.head.bias = nn.Parameter(bias)
        self.reader = ReaderNetwork(config)

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
        there, sides, quality, fine = self.head(hidden).float().split(self.parts, 1)
        return Answer(there, boxes_of(sides), quality[:, 0], functional.pixel_shuffle(fine, 2), hidden.float())


def boxes_of(sides: Tensor) -> Tensor:
    """Turn distances to left, top, right, bottom before softplus (B, 4, g, g) into boxes around the cells' centres."""
    grid = sides.shape[-1]
    at = (torch.arange(grid, dtype=sides.dtype, device=sides.device) + 0.5) / grid
    x, y = at[None, None, :].expand(len(sides), grid, grid), at[None, :, None].expand(len(sides), grid, grid)
    left, top, right, bottom = functional.softplus(sides).unbind(1)
    return torch.stack([x - left, y - top, x + right, y + bottom], 1)
