"""From the locations of instances to the layers of `mis_merge="layered"`, and to where their depth order matters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from instancediffusion.conditioning import LocationTensors, locations_from_scenes
from instancediffusion.conditioning.regions import canvas_units, known_extents
from instancediffusion.conditioning.visibility import (
    POINT_RADIUS,
    STROKE_RADIUS,
    memberships,
    visibility,
)
from instancediffusion.sampling import Crop, LayeredMerge, Window
from instancediffusion.scene import Scene

PADDING = 0.15
"""Margin of a crop round its instance, as a fraction of the instance's sides, on each side."""

LEAST_SHARE = 0.375
"""Least side of a crop, as a fraction of the canvas: models draw poorly on canvases far smaller than in training."""


@dataclass(frozen=True)
class LatentCanvas:
    """What a merge rule is made for, beside a scene.

    Attributes:
        size: (height, width) of the latent in latent pixels.
        factor: of the UNet: the sides of its input are multiples of it.
        published: whether the details of the published code are asked for (`mis_compat`).
        locations: where the instances are, for rules that are `located`; see `latent_locations`.
        ground: one layer more, after the last instance, of the prompt without any instance, with a blend mask where
            instances are. It has no weight in the merge.
    """

    size: tuple[int, int]
    factor: int = 1
    published: bool = False
    locations: LocationTensors | None = None
    ground: bool = False


def latent_locations(scene: Scene, latent_size: tuple[int, int]) -> LocationTensors:
    """Where the instances of a scene are, with their masks at the (height, width) of a latent in latent pixels."""
    return locations_from_scenes([scene], segmentation_size=max(latent_size), segmentation_channels=0)


def layered_merge(scene: Scene, canvas: LatentCanvas) -> LayeredMerge:
    """The layers of a scene.

    Instances that hide each other are weighted by visibility, front to back; where two overlap whose order is not
    stated they have equal weights. What no instance claims stays the scene's.
    """
    instances, latent_size = tuple(range(1, len(scene.instances) + 1)), canvas.size
    if not instances:
        return LayeredMerge((), {}, torch.ones(1, *latent_size))
    locations = latent_locations(scene, latent_size) if canvas.locations is None else canvas.locations
    weights = _with_rest(shown_regions(locations, latent_size))
    crops = {}
    for number, reach in zip(instances, _reaches(locations, latent_size), strict=True):
        x0, y0, x1, y1 = reach
        dx, dy = PADDING * (x1 - x0), PADDING * (y1 - y0)
        window = Window.aligned((x0 - dx, y0 - dy, x1 + dx, y1 + dy), latent_size, canvas.factor, LEAST_SHARE)
        crops[number] = Crop(window, _blend_mask(window, reach, latent_size))
        weights[number] *= _within(window, latent_size)
    weights = weights / weights.sum(0, keepdim=True).clamp(min=1e-6)
    if not canvas.ground:
        return LayeredMerge(instances, crops, weights)
    last = len(instances) + 1
    crops[last] = Crop(Window(0, 0, *latent_size), memberships(locations, latent_size)[0].amax(0).clamp(0, 1))
    return LayeredMerge((*instances, last), crops, torch.cat([weights, torch.zeros(1, *latent_size)]))


def caption_weights(locations: LocationTensors, size: tuple[int, int]) -> Tensor:
    """How much of a position is each instance's, (N, height, width), 0..1; they sum to 1 at most.

    Visible instances of unknown order share a position evenly; what none claims is left.
    """
    weights = _with_rest(shown_regions(locations, size))
    return (weights / weights.sum(0, keepdim=True))[1:]


def _with_rest(shown: Tensor) -> Tensor:
    """(1 + N, height, width): what no instance claims, and then what is seen of each (N, height, width)."""
    return torch.cat([(1 - shown.amax(0, keepdim=True)).clamp(min=0), shown])


def shown_regions(locations: LocationTensors, size: tuple[int, int]) -> Tensor:
    """Where each instance is visible, (N, height, width), 0..1: its region less what hides it; see `visibility`."""
    shown = visibility(locations, size)[0]
    # The floors are made for logarithms; here they would let every instance act everywhere.
    return torch.where(shown > _floor(locations), shown, 0.0)


def _floor(locations: LocationTensors) -> Tensor:
    """(N, 1, 1): what a latent pixel has to exceed to count as the instance's."""
    tight = (locations.present["box"] | locations.present["mask"])[0]
    return torch.where(tight, 1e-3, 0.12)[:, None, None]


def _reaches(locations: LocationTensors, size: tuple[int, int]) -> list[tuple[float, float, float, float]]:
    """x0, y0, x1, y1 of each instance on latents of (height, width); strokes and points are given some room."""
    extents, _ = known_extents(locations)
    present = locations.present
    loose = ~(present["box"] | present["mask"])
    room = torch.where(loose & present["scribble"], 2 * STROKE_RADIUS, torch.where(loose, 2 * POINT_RADIUS, 0.0))
    around = room[..., None] / torch.tensor(canvas_units(size), device=room.device)
    low, high = (extents[..., :2] - around).clamp(0, 1), (extents[..., 2:] + around).clamp(0, 1)
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in torch.cat([low, high], -1)[0].tolist()]


def _blend_mask(window: Window, reach: tuple[float, ...], size: tuple[int, int]) -> Tensor:
    """Feathered mask: 1 on what the instance reaches, falling to 0 at the borders of the window inside the canvas."""

    def along(first: int, last: int, low: float, high: float, count: int) -> Tensor:
        middle = torch.arange(first, last, dtype=torch.float32) + 0.5
        low, high = low * count, high * count
        before = torch.ones_like(middle) if first == 0 else (middle - first) / max(low - first, 1.0)
        after = torch.ones_like(middle) if last == count else (last - middle) / max(last - high, 1.0)
        return torch.minimum(before, after).clamp(0, 1)

    x0, y0, x1, y1 = reach
    rows = along(window.top, window.bottom, y0, y1, size[0])
    columns = along(window.left, window.right, x0, x1, size[1])
    return rows[:, None] * columns


def _within(window: Window, size: tuple[int, int]) -> Tensor:
    inside = torch.zeros(size)
    inside[window.top : window.bottom, window.left : window.right] = 1
    return inside
