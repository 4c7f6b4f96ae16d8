"""The reader: classifies and segments an object in a window around its box, from the pixels and the box alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from instancediffusion.evaluation.seen import Floats

from .blocks import ChannelNorm, Residual
from .judge_config import CELL_PX, JudgeConfig

ROOM = 1.3
"""Side of the square window around a box, in longer sides of the box."""

PLACED = 32
"""Channels of the lowest level that are read with their positions; the others are averaged over the window."""


@dataclass(frozen=True)
class Reading:
    """Predictions of the reader for M windows of side P pixels.

    Attributes:
        kind: (M, K + 1) logits; 0 is "no object".
        colour: (M, C) logits.
        facing: (M, F) logits.
        box: (M, 4) x0 y0 x1 y1 of the whole object (amodal), fractions of the window.
        mask: (M, 2, P / 2, P / 2) logits of the visible mask and of the amodal mask.
    """

    kind: Tensor
    colour: Tensor
    facing: Tensor
    box: Tensor
    mask: Tensor


class ReaderNetwork(nn.Module):
    """Windows to a `Reading`: a U-Net of three levels, whose lowest level predicts all but the masks.

    Args:
        config: sizes, classes and attributes.
    """

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        first, second, third = config.crop_widths
        self.parts = (len(config.kinds) + 1, len(config.colours), len(config.facings), 4)
        self.stem = nn.Conv2d(4 * CELL_PX**2, first, 3, padding=1)
        self.fine = Residual(first)
        self.down = nn.Conv2d(first, second, 3, stride=2, padding=1)
        self.middle = nn.Sequential(Residual(second), Residual(second))
        self.lower = nn.Conv2d(second, third, 3, stride=2, padding=1)
        self.coarse = nn.Sequential(Residual(third), ChannelNorm(third))
        self.from_coarse = nn.Conv2d(third, second, 1)
        self.from_middle = nn.Conv2d(second, first, 1)
        self.back = Residual(first)
        self.mask = nn.Sequential(ChannelNorm(first), nn.Conv2d(first, 2 * (CELL_PX // 2) ** 2, 3, padding=1))
        grid = config.crop_px // (4 * CELL_PX)
        # Only a few channels keep their positions: a linear layer over all of them would have far too many inputs.
        self.squeeze = nn.Conv2d(third, PLACED, 1)
        self.whole = nn.Linear(third + PLACED * grid**2, config.hidden * 2)
        self.head = nn.Linear(config.hidden * 2, sum(self.parts))
        with torch.no_grad():
            self.head.weight.mul_(0.1)

    def forward(self, windows: Tensor) -> Reading:
        """Read windows (M, 4, P, P): colours -1..1, and 1 in the given box, 0 around it."""
        fine = self.fine(self.stem(functional.pixel_unshuffle(windows, CELL_PX)))
        middle = self.middle(self.down(fine))
        coarse = self.coarse(self.lower(middle))
        pooled = torch.cat([coarse.mean((2, 3)), self.squeeze(coarse).flatten(1)], 1)
        kind, colour, facing, sides = self.head(functional.silu(self.whole(pooled))).float().split(self.parts, 1)
        middle = middle + functional.interpolate(self.from_coarse(coarse), scale_factor=2.0, mode="nearest")
        fine = fine + functional.interpolate(self.from_middle(middle), scale_factor=2.0, mode="nearest")
        mask = functional.pixel_shuffle(self.mask(self.back(fine)), CELL_PX // 2).float()
        return Reading(kind, colour, facing, told_corners(windows[:, 3]) + sides, mask)


def told_corners(inside: Tensor) -> Tensor:
    """Return the given box (M, 4), fractions, from its channel (M, P, P); it is centred on the window."""
    side = inside.shape[-1]
    half = torch.stack([inside.amax(1).sum(-1), inside.amax(2).sum(-1)], 1) / (2 * side)
    return torch.cat([0.5 - half, 0.5 + half], 1)


def windows_around(boxes: Floats, size: tuple[int, int]) -> Floats:
    """Return the square windows (M, 4), x0 y0 x1 y1 pixels, around boxes (M, 4), fractions of (height, width)."""
    height, width = size
    pixels = boxes * np.array([width, height, width, height])
    middle = (pixels[:, :2] + pixels[:, 2:]) / 2
    half = np.maximum((pixels[:, 2:] - pixels[:, :2]).max(1, keepdims=True), 4.0) * (ROOM / 2)
    return np.concatenate([middle - half, middle + half], 1)


def crops_of(image: Image.Image, boxes: Floats, side_px: int) -> tuple[Tensor, Floats]:
    """Crop the windows around boxes from a picture.

    Args:
        image: RGB. Outside of it a window is grey.
        boxes: (M, 4), x0 y0 x1 y1 fractions of the picture.
        side_px: P.

    Returns:
        (M, 4, P, P) for the reader, and the windows (M, 4) in pixels of the picture.
    """
    windows = windows_around(boxes, (image.height, image.width))
    inside = [inside_window(box, window, image, side_px) for box, window in zip(boxes, windows, strict=True)]
    crops = torch.zeros(len(boxes), 4, side_px, side_px)
    if len(boxes):
        crops[:, :3] = cut_out(image, windows, side_px)
        crops[:, 3] = torch.stack(inside)
    return crops, windows


def cut_out(image: Image.Image, windows: Floats, side_px: int) -> Tensor:
    """Crop windows (M, 4), x0 y0 x1 y1 pixels, from an RGB picture: (M, 3, P, P), -1..1, grey outside the picture."""
    margin = int(np.ceil(max(0.0, -windows.min(), *(windows[:, 2:] - (image.width, image.height)).max(0)))) + 1
    wide = Image.new("RGB", (image.width + 2 * margin, image.height + 2 * margin), (128, 128, 128))
    wide.paste(image, (margin, margin))
    pixels = []
    for window in windows:
        x0, y0, x1, y1 = (float(value) + margin for value in window)
        pixels.append(np.array(wide.resize((side_px, side_px), Image.Resampling.BILINEAR, box=(x0, y0, x1, y1))))
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def inside_window(box: Floats, window: Floats, image: Image.Image, side_px: int) -> Tensor:
    """Return (P, P): 1 where a box (4,), fractions of the picture, lies in a window (4,), pixels; else 0."""
    pixels = box * np.array([image.width, image.height] * 2)
    corners = (pixels - np.tile(window[:2], 2)) / (window[2] - window[0]) * side_px
    x0, y0, x1, y1 = np.rint(corners).astype(int).clip(0, side_px)
    inside = torch.zeros(side_px, side_px)
    inside[y0:y1, x0:x1] = 1
    return inside
