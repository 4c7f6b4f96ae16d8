"""An instance as it lies on a part of the canvas."""

from __future__ import annotations

import dataclasses

import numpy as np

from instancediffusion.scene import Box, Instance, Mask, Point, Scribble

BoxUnit = tuple[float, float, float, float]
"""x0, y0, x1, y1 in fractions of a canvas."""

WHOLE_CANVAS: BoxUnit = (0.0, 0.0, 1.0, 1.0)


def framed(instance: Instance, frame: BoxUnit) -> Instance:
    """The instance in the frame's own fractions; what lies outside the frame is cut off or moved to its border.

    Args:
        instance: on the whole canvas.
        frame: the part of the canvas; it holds at least some of the instance.
    """
    x0, y0, x1, y1 = frame

    def inside(x: float, y: float) -> tuple[float, float]:
        return min(max((x - x0) / (x1 - x0), 0.0), 1.0), min(max((y - y0) / (y1 - y0), 0.0), 1.0)

    box, point, stroke, mask = instance.box, instance.point, instance.scribble, instance.mask
    return dataclasses.replace(
        instance,
        box=None if box is None else Box(*inside(box.x0, box.y0), *inside(box.x1, box.y1)),
        point=None if point is None else Point(*inside(point.x, point.y)),
        scribble=None if stroke is None else Scribble(tuple(inside(x, y) for x, y in stroke.points)),
        mask=None if mask is None else Mask.from_array(_cut(mask.array, frame)),
    )


def _cut(mask: np.ndarray, frame: BoxUnit) -> np.ndarray:
    height, width = mask.shape
    x0, y0, x1, y1 = frame
    left, top = min(int(x0 * width + 0.5), width - 1), min(int(y0 * height + 0.5), height - 1)
    right, bottom = max(int(x1 * width + 0.5), left + 1), max(int(y1 * height + 0.5), top + 1)
    return mask[top:bottom, left:right]
