"""How the latents of single instances join the latent of the whole scene, and the crops they are computed on."""

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
        crops: by instance, the part of the canvas its trajectory is computed on; the others are computed whole.
    """

    @property
    def instances(self) -> tuple[int, ...]:
        """The instances, counted from 1, whose trajectories are needed."""
        ...

    @property
    def crops(self) -> Mapping[int, Crop]:
        """The part of the canvas of each instance that has one."""
        ...

    def __call__(self, whole: Tensor, parts: Mapping[int, Tensor]) -> Tensor:
        """Join the latents of one image.

        Args:
            whole: (..., H, W) latent of the whole scene; not changed.
            parts: the same shape, by instance.
        """
        ...


class _OnWholeCanvas:
    """Rules whose instances are all computed on the whole canvas."""

    @property
    def crops(self) -> Mapping[int, Crop]:
        """None; see `Merge`."""
        return {}


@dataclass(frozen=True)
class MeanMerge(_OnWholeCanvas):
    """The unweighted mean of the whole scene's latent and all instances' latents (the paper's rule)."""

    instances: tuple[int, ...]

    def __call__(self, whole: Tensor, parts: Mapping[int, Tensor]) -> Tensor:
        """Join the latents of one image; see `Merge`."""
        return torch.stack([whole, *(parts[i] for i in self.instances)]).mean(0)


@dataclass(frozen=True)
class LastMerge(_OnWholeCanvas):
    """The last instance's latent only: what the published code returns when its fraction of steps is 1 or more."""

    instances: tuple[int, ...]

    def __call__(self, whole: Tensor, parts: Mapping[int, Tensor]) -> Tensor:
        """Join the latents of one image; see `Merge`."""
        return parts[self.instances[-1]].clone() if self.instances else whole


@dataclass(frozen=True)
class Window:
    """A rectangle of latent pixels: rows `top` to `bottom`, columns `left` to `right`, ends not included."""

    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def from_box(cls, box_unit: Sequence[float], size: tuple[int, int]) -> Window:
        """The latent pixels that a box touches, at least one.

        Args:
            box_unit: x0, y0, x1, y1 as fractions of the canvas.
            size: (height, width) of the latent.
        """
        height, width = size
        left, right = _span(box_unit[0], box_unit[2], width)
        top, bottom = _span(box_unit[1], box_unit[3], height)
        return cls(top, left, bottom, right)

    @classmethod
    def aligned(cls, box_unit: Sequence[float], size: tuple[int, int], factor: int, least_share: float) -> Window:
        """A window round a box whose sides are multiples of a network's factor, moved to stay on the canvas.

        Args:
            box_unit: x0, y0, x1, y1 as fractions of the canvas.
            size: (height, width) of the latent.
            factor: the sides are multiples of it, unless the canvas is smaller.
            least_share: least side as a fraction of the canvas's.
        """
        x0, y0, x1, y1 = box_unit
        top, bottom = _aligned(y0, y1, size[0], factor, least_share)
        left, right = _aligned(x0, x1, size[1], factor, least_share)
        return cls(top, left, bottom, right)

    def unit(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return x0, y0, x1, y1 as fractions of a canvas of (height, width) latent pixels."""
        height, width = size
        return (self.left / width, self.top / height, self.right / width, self.bottom / height)

    @classmethod
    def published(cls, box_unit: Sequence[float], size: tuple[int, int]) -> Window:
        """The published window: corners truncated to latent pixels, x taken for the row and y for the column."""
        height, width = size
        x0, y0, x1, y1 = box_unit
        return cls(int(x0 * width), int(y0 * height), int(x1 * width), int(y1 * height))


@dataclass(frozen=True, eq=False)
class Crop:
    """The part of the canvas that one instance is computed on, and how it is blended into the scene.

    Attributes:
        window: its latent pixels.
        hold: feathered blend mask (h, w) of the window, 0..1: 1 where the instance's own prediction counts, 0 where the
            scene's does.
    """

    window: Window
    hold: Tensor

    def cut(self, latent: Tensor) -> Tensor:
        """Return the window of (..., H, W)."""
        w = self.window
        return latent[..., w.top : w.bottom, w.left : w.right]

    def put(self, scene: Tensor, own: Tensor) -> Tensor:
        """Return the scene's prediction (..., H, W) with the instance's own (..., h, w) blended in."""
        joined = scene.clone()
        inner = self.cut(joined)
        inner += self.hold.to(inner) * (own - inner)
        return joined

    def share(self, size: tuple[int, int]) -> float:
        """Return the window's area as a fraction of a canvas of (height, width) latent pixels."""
        return self.hold.numel() / (size[0] * size[1])


class CropBatch:
    """Crops of one size, each of a canvas of its own, cut out and put back as one batch.

    Args:
        crops: one for each of K batch elements.
        size: (H, W) of the canvas in latent pixels.
        device: that of the latents.
    """

    def __init__(self, crops: Sequence[Crop], size: tuple[int, int], device: torch.device) -> None:
        self._shape = tuple(crops[0].hold.shape)
        pixels = torch.arange(size[0] * size[1]).view(size)
        self._index = torch.stack([crop.cut(pixels).flatten() for crop in crops])[:, None].to(device)
        self._hold = torch.stack([crop.hold.flatten() for crop in crops])[:, None].to(device)

    def cut(self, latents: Tensor) -> Tensor:
        """Return the windows (K, C, h, w) of (K, C, H, W)."""
        return self._cut(latents).unflatten(-1, self._shape)

    def put(self, scenes: Tensor, own: Tensor) -> Tensor:
        """Return predictions (K, C, H, W) of the scenes with the crops' own (K, C, h, w) blended in."""
        inner = self._cut(scenes)
        inner = inner + self._hold.to(inner) * (own.flatten(2) - inner)
        return scenes.flatten(2).scatter(-1, self._index.expand_as(inner), inner).view_as(scenes)

    def _cut(self, latents: Tensor) -> Tensor:
        return latents.flatten(2).gather(-1, self._index.expand(-1, latents.shape[1], -1))


@dataclass(frozen=True, eq=False)
class LayeredMerge:
    """Each instance's latent where it is visible: a composite of layers in place of a mean.

    The trajectories are computed on crops. Outside its crop a trajectory is the scene's own, so what is composited is
    anchored in the scene, shares its noise, and costs no more than the area of the crop.

    Attributes:
        instances: the layers.
        crops: of each.
        weights: (1 + n, H, W) of the whole scene and of each layer; they sum to 1 in each latent pixel.
    """

    instances: tuple[int, ...]
    crops: Mapping[int, Crop]
    weights: Tensor

    def __call__(self, whole: Tensor, parts: Mapping[int, Tensor]) -> Tensor:
        """Join the latents of one image; see `Merge`."""
        weights = self.weights.to(whole)
        merged = weights[0] * whole
        for layer, instance in enumerate(self.instances, 1):
            merged = merged + weights[layer] * parts[instance]
        return merged


@dataclass(frozen=True)
class CropMerge(_OnWholeCanvas):
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


def _span(low: float, high: float, count: int) -> tuple[int, int]:
    """First and one past the last latent pixel of an interval, of `count` in all."""
    tolerance = 1e-5  # an edge on the border of a pixel, up to rounding, stays out of the next pixel
    first = min(max(math.floor(low * count + tolerance), 0), count - 1)
    last = min(max(math.ceil(high * count - tolerance), first + 1), count)
    return first, last


def _aligned(low: float, high: float, count: int, factor: int, least_share: float) -> tuple[int, int]:
    """First and one past the last latent pixel of an interval whose length is a multiple of `factor`, if it fits."""
    length = max((high - low) * count, least_share * count)
    side = min(math.ceil(length / factor - 1e-5) * factor, count)
    # The nearest such interval round the same middle that stays on the canvas.
    first = min(max(round((low + high) / 2 * count - side / 2), 0), count - side)
    return first, first + side
