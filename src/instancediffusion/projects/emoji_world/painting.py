"""Painting: shadows on the ground first, then objects from the farthest to the nearest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .captions import Named
from .layout import Corner, paste
from .sprites import Stamp


@dataclass(frozen=True)
class Placed:
    """An object before it is painted."""

    named: Named
    stamp: Stamp
    corner: Corner

    def box(self, size: tuple[int, int]) -> NDArray[np.float32]:
        """Return the tight box of the silhouette, x0 y0 x1 y1, as fractions of a canvas of (height, width) pixels."""
        (top, left), mask = self.corner, self.stamp.mask
        ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        height, width = size
        return np.array(
            [(left + xs[0]) / width, (top + ys[0]) / height, (left + xs[-1] + 1) / width, (top + ys[-1] + 1) / height],
            np.float32,
        )

    def parts(self, box: NDArray[np.float32], size: tuple[int, int]) -> dict[str, NDArray[np.float32]]:
        """Return the boxes of the parts in the same coordinates, each clipped to the object's own `box`."""
        (top, left), (tall, wide), (height, width) = self.corner, self.stamp.mask.shape, size
        scale, shift = np.array([wide, tall] * 2), np.array([left, top] * 2)
        found = {}
        for name, corners in self.named.look.parts_facing(self.named.facing).items():
            part = (np.array(corners) * scale + shift) / np.array([width, height] * 2)
            found[name] = np.clip(part, np.tile(box[:2], 2), np.tile(box[2:], 2)).astype(np.float32)
        return found


def paint(image: NDArray[np.float32], item: Placed) -> None:
    """Put one object over the picture, in place."""
    (y, x), (height, width) = item.corner, item.stamp.mask.shape
    window = image[y : y + height, x : x + width]
    window *= item.stamp.clear
    window += item.stamp.paint


def cast_shadows(image: NDArray[np.float32], placed: Sequence[Placed]) -> None:
    """Darken the ground under what stands, in place. Before any object, so that depth order changes no shadow."""
    height, width = image.shape[:2]
    for item in placed:
        if not item.named.kind.stands:
            continue
        (top, left), (tall, wide) = item.corner, item.stamp.mask.shape
        feet = np.flatnonzero(item.stamp.mask[int(tall * 0.88) :].any(0))
        if not len(feet):
            continue
        centre_x, radius_x = (
            left + (feet[0] + feet[-1] + 1) / 2.0,
            max((feet[-1] - feet[0] + 1) / 2.0, 2.0) * 1.25 + 1.0,
        )
        centre_y, radius_y = top + tall - 0.02 * tall, max(0.055 * min(tall, wide) + 1.0, 1.5) * 1.6
        y0, y1 = max(0, int(centre_y - radius_y)), min(height, int(centre_y + radius_y) + 2)
        x0, x1 = max(0, int(centre_x - radius_x)), min(width, int(centre_x + radius_x) + 2)
        y = ((np.arange(y0, y1) + 0.5 - centre_y) / radius_y) ** 2
        x = ((np.arange(x0, x1) + 0.5 - centre_x) / radius_x) ** 2
        dark = np.clip(1.0 - (y[:, None] + x[None, :]), 0.0, 1.0).astype(np.float32)
        image[y0:y1, x0:x1] *= 1.0 - 0.5 * (dark * (2.0 - dark))[..., None]


def paint_layers(
    image: NDArray[np.float32], placed: Sequence[Placed], ranks: Sequence[int]
) -> tuple[list[NDArray[np.bool_]], list[NDArray[np.bool_]]]:
    """Paint objects back to front, on their shadows, into `image` (H, W, 3), which is changed.

    Args:
        image: the background.
        placed: the objects.
        ranks: of each, 0 is the farthest.

    Returns:
        Of each object (H, W) bool: its amodal mask, and its visible mask.
    """
    size = (image.shape[0], image.shape[1])
    cast_shadows(image, placed)
    amodal = [paste(one.stamp.mask, one.corner, size) for one in placed]
    visible, covered = list(amodal), np.zeros(size, bool)
    from_back = sorted(range(len(placed)), key=ranks.__getitem__)
    for index in reversed(from_back):
        visible[index] = amodal[index] & ~covered
        covered |= amodal[index]
    for index in from_back:
        paint(image, placed[index])
    return amodal, visible
