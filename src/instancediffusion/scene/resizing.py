"""The same scene on a canvas of other pixel counts, such as those of the picture made from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .locations import Mask
from .model import Scene


def resize_scene(scene: Scene, *, width: int, height: int) -> Scene:
    """The scene on a canvas of `width` x `height` pixels; fractions stay, masks are resampled by nearest neighbour.

    A mask too thin to be met by any sample keeps one pixel.
    """
    if (width, height) == (scene.width, scene.height):
        return scene
    stated = (instance.without_implied((scene.height, scene.width)) for instance in scene.instances)
    instances = tuple(
        instance if instance.mask is None else replace(instance, mask=_resize_mask(instance.mask, height, width))
        for instance in stated
    )
    return replace(scene, instances=instances, width=width, height=height)


def _resize_mask(mask: Mask, height: int, width: int) -> Mask:
    array = mask.array
    rows = (np.arange(height) + 0.5) * array.shape[0] / height
    columns = (np.arange(width) + 0.5) * array.shape[1] / width
    resized = array[rows.astype(int)[:, None], columns.astype(int)]
    if not resized.any():
        row, column = np.argwhere(array)[0]
        resized[row * height // array.shape[0], column * width // array.shape[1]] = True
    return Mask.from_array(resized)
