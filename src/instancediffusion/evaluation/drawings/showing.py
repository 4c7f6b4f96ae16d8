"""What is seen of each object of one picture, pixel by pixel: its drawing, another's, or the ground behind them.

Every pixel in and round the silhouettes is compared with the drawings there and with the ground: what the picture shows
beside the objects, at the same height, for grounds of the world change from top to bottom. What looks alike decides
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from .placing import DECIDED, LEAST_DIFFERENCE, LEAST_SHARE, Bools, Drawn, Floats, blurred

BAND_SHARE = 1 / 40
"""How far outside of its silhouette an object's pixels are looked for, in canvases."""

NOBODY, UNDECIDED = -1, -2
"""Labels of pixels that show no object, and of those where two candidates look too much alike to tell."""


def shown(image: Image.Image, drawn: Sequence[Drawn]) -> npt.NDArray[np.int16]:
    """Say what each pixel of a picture (RGB) shows.

    A pixel shows the candidate whose colour it is clearly nearest to (see `DECIDED`): a drawing, where it or
    its rim of `BAND_SHARE` is, or the ground.

    Args:
        image: of the size of the drawings' canvases.
        drawn: the objects where they should be, in any order.

    Returns:
        (H, W): index of the drawing, `NOBODY` or `UNDECIDED`.
    """
    own = blurred(image)
    labels = np.full(own.shape[:2], NOBODY, np.int16)
    if not drawn:
        return labels
    bands = [grown(one.inside) for one in drawn]
    anywhere = np.any(bands, axis=0)
    ground = ground_beside(own, anywhere)
    if ground is None:
        # Objects cover everything: they are compared among themselves.
        ground = np.full_like(own, np.inf)
    colours = np.stack([ground, *(_extended(one) for one in drawn)])
    distances = np.linalg.norm(colours - own, axis=-1)
    for index, band in enumerate(bands):
        distances[index + 1][~band] = np.inf
    rows, columns = np.nonzero(anywhere)
    first, second = np.argsort(distances[:, rows, columns], axis=0)[:2]
    nearest, next_one = distances[first, rows, columns], distances[second, rows, columns]
    alike = np.linalg.norm(colours[first, rows, columns] - colours[second, rows, columns], axis=-1) < LEAST_DIFFERENCE
    with np.errstate(invalid="ignore"):
        clear = (nearest <= DECIDED * (nearest + next_one)) | np.isinf(next_one)
    found = np.where(clear, first - 1, NOBODY)
    labels[rows, columns] = np.where(alike, UNDECIDED, found)
    return labels


def shown_iou(labels: npt.NDArray[np.int16], index: int, visible: Bools) -> float | None:
    """Return the IoU of what shows a drawing and what should (H, W), of the pixels that can be told.

    Returns:
        None if too little of what should be visible can be told.
    """
    told = labels != UNDECIDED
    if (visible & told).sum() < LEAST_SHARE * visible.size:
        return None
    mine = labels == index
    return float((mine & visible & told).sum() / ((mine | visible) & told).sum())


def shown_share(labels: npt.NDArray[np.int16], index: int, visible: Bools) -> float | None:
    """Return the share of what should be visible (H, W) that shows the drawing; None as in `shown_iou`."""
    told = visible & (labels != UNDECIDED)
    if told.sum() < LEAST_SHARE * visible.size:
        return None
    return float((labels[told] == index).mean())


def _band(shape: Sequence[int]) -> int:
    return max(1, round(BAND_SHARE * max(shape)))


def grown(inside: Bools) -> Bools:
    """Return a silhouette (H, W) with its rim of `BAND_SHARE`."""
    size = 2 * _band(inside.shape) + 1
    return np.asarray(Image.fromarray(inside.astype(np.uint8)).filter(ImageFilter.MaxFilter(size))) > 0


def _extended(one: Drawn) -> Floats:
    """Return the drawing's colours, continued round its silhouette by those of the nearest part of its rim."""
    radius = _band(one.inside.shape)
    weight = _boxed(one.inside.astype(np.float64), radius)
    near = np.stack([_boxed(one.pixels[..., k] * one.inside, radius) for k in range(3)], -1)
    return np.where(one.inside[..., None], one.pixels, near / np.maximum(weight, 1e-9)[..., None])


def _boxed(values: Floats, radius: int) -> Floats:
    """Sum over the neighbourhood of each pixel, so many pixels each way."""
    for axis in (0, 1):
        padded = np.pad(values, [(radius + 1, radius) if k == axis else (0, 0) for k in (0, 1)]).cumsum(axis)
        count = values.shape[axis]
        values = padded.take(range(2 * radius + 1, 2 * radius + 1 + count), axis) - padded.take(range(count), axis)
    return values


def ground_beside(pixels: Floats, covered: Bools) -> Floats | None:
    """Return the ground of pixels (H, W, 3), or None if all are covered.

    Covered ones (H, W) take what is uncovered left and right of them, or else what is nearest above or below.
    """
    if covered.all():
        return None
    ground = pixels.copy()
    free_rows = ~covered.all(1)
    x, y = np.arange(covered.shape[1]), np.arange(covered.shape[0])
    for row in np.flatnonzero(free_rows & covered.any(1)):
        free = ~covered[row]
        for k in range(3):
            ground[row, :, k] = np.interp(x, x[free], pixels[row, free, k])
    for row in np.flatnonzero(~free_rows):
        nearest = y[free_rows][np.abs(y[free_rows] - row).argmin()]
        ground[row] = ground[nearest]
    return ground
