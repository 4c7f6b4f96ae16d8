"""Multi-instance Sampler: how the latents of single instances join the latent of the whole scene.

For the first steps each instance is denoised alone, with its caption as the prompt, beside the whole scene; then the
latents are merged and the whole scene goes on (InstanceDiffusion, Wang et al. 2024, section 3.4).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Merge(Protocol):
    """A rule of merging for one image.

    Attributes:
        instances: the instances, counted from 1, whose trajectories the rule needs; no others are computed.
    """

    @property
    def instances(self) -> tuple[int, ...]:
        """The instances, counted from 1, whose trajectories are needed."""
        ...

    def __call__(self, whole: Tensor, parts: Mapping[int, Tensor]) -> Tensor:
        """Join the latents of one image.

        Args:
            whole: (..., H, W) latent of the whole scene; not changed.
            parts: the same shape, by instance.
        """
        ...


@dataclass(frozen=True)
class MeanMerge:
    """The unweighted mean of the whole scene's latent and all instances' latents (the paper's rule)."""

    instances: tuple[int, ...]

    def __call__(self, whole: Tensor, parts: Mapping[int, Tensor]) -> Tensor:
        """Join the latents of one image; see `Merge`."""
        return torch.stack([whole, *(parts[i] for i in self.instances)]).mean(0)


@dataclass(frozen=True)
class LastMerge:
    """The last instance's latent alone: what the published code returns when its share of steps is 1 or more."""

    instances: tuple[int, ...]

    def __call__(self, whole: Tensor, parts: Mapping[int, Tensor]) -> Tensor:
        """Join the latents of one image; see `Merge`."""
        return parts[self.instances[-1]].clone() if self.instances else whole


@dataclass(frozen=True)
class Window:
    """A rectangle of latent cells: rows `top` to `bottom`, columns `left` to `right`, ends not included."""

    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def from_box(cls, box_unit: Sequence[float], size: tuple[int, int]) -> Window:
        """The cells that a box touches, at least one.

        Args:
            box_unit: x0, y0, x1, y1 as fractions of the canvas.
            size: (height, width) of the latent in cells.
        """
        height, width = size
        left, right = _cells(box_unit[0], box_unit[2], width)
        top, bottom = _cells(box_unit[1], box_unit[3], height)
        return cls(top, left, bottom, right)

    @classmethod
    def published(cls, box_unit: Sequence[float], size: tuple[int, int]) -> Window:
        """The published window: corners truncated to cells, x taken for the row and y for the column."""
        height, width = size
        x0, y0, x1, y1 = box_unit
        return cls(int(x0 * width), int(y0 * height), int(x1 * width), int(y1 * height))


@dataclass(frozen=True)
class CropMerge:
    """Each instance's latent inside its window, pasted onto the whole scene's latent (the paper's crop and paste).

    Attributes:
        windows: (instance, window) in the order of pasting; a later one covers an earlier one.
    """

    windows: tuple[tuple[int, Window], ...]

    @property
    def instances(self) -> tuple[int, ...]:
        """The instances that are pasted, in that order."""
        return tuple(instance for instance, _ in self.windows)

    def __call__(self, whole: Tensor, parts: Mapping[int, Tensor]) -> Tensor:
        """Join the latents of one image; see `Merge`."""
        merged = whole.clone()
        for instance, w in self.windows:
            merged[..., w.top : w.bottom, w.left : w.right] = parts[instance][..., w.top : w.bottom, w.left : w.right]
        return merged


def _cells(low: float, high: float, count: int) -> tuple[int, int]:
    """First and one past the last cell of an interval, of `count` cells in all."""
    tolerance = 1e-5  # an edge on a cell border, up to rounding, stays out of the next cell
    first = min(max(math.floor(low * count + tolerance), 0), count - 1)
    last = min(max(math.ceil(high * count - tolerance), first + 1), count)
    return first, last
