"""Object placement: fully on the canvas, about half of the pictures with overlap, none mostly hidden in any order.

Acceptance never depends on the depth order, so the order is independent of size, location and index.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Corner = tuple[int, int]

_TRIES = 48
_NO_OVERLAP_IOU = 0.005
"""Largest box IoU of two objects that count as not overlapping."""


def place(
    rng: np.random.Generator,
    masks: Sequence[Mask],
    size: tuple[int, int],
    *,
    overlap: bool,
    iou: tuple[float, float],
    min_visible: float,
) -> list[Corner] | None:
    """Find locations for objects of given silhouettes.

    Args:
        rng: generator.
        masks: (h, w) each, tight, no larger than the canvas.
        size: canvas, (height, width), pixels.
        overlap: whether the second object must overlap the first (later ones may overlap any); else none overlap.
        iou: range of the box IoU of an overlapping pair.
        min_visible: fraction of each object that must stay free of all others together, whatever the order.

    Returns:
        The top-left corners (y, x) in pixels, or None if a few dozen tries found no arrangement.
    """
    boxes = np.zeros((0, 4))
    corners: list[Corner] = []
    for index, mask in enumerate(masks):
        height, width = mask.shape
        anchor = None
        if overlap and index and (index == 1 or rng.random() < 0.35):
            anchor = int(rng.integers(index))
        y, x = _proposals(rng, (height, width), size, None if anchor is None else boxes[anchor])
        tried = np.stack([x, y, x + width, y + height], 1).astype(float)
        found = _ious(tried, boxes)
        if anchor is None:
            good = (found <= _NO_OVERLAP_IOU).all(1)
        else:
            good = (found[:, anchor] >= iou[0]) & (found <= iou[1]).all(1)
        picks = np.flatnonzero(good)
        if not len(picks):
            return None
        corners.append((int(y[picks[0]]), int(x[picks[0]])))
        boxes = np.concatenate([boxes, tried[picks[:1]]])
    return corners if _all_visible(masks, corners, size, min_visible, touching=overlap) else None


def paste(mask: Mask, corner: Corner, size: tuple[int, int]) -> Mask:
    """Return a silhouette on the canvas: (H, W) bool."""
    canvas = np.zeros(size, bool)
    canvas[corner[0] : corner[0] + mask.shape[0], corner[1] : corner[1] + mask.shape[1]] = mask
    return canvas


def _proposals(
    rng: np.random.Generator, shape: tuple[int, int], size: tuple[int, int], anchor: NDArray[np.float64] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Propose corners: anywhere, or around the anchor box."""
    room_y, room_x = size[0] - shape[0], size[1] - shape[1]
    y, x = rng.random((2, _TRIES))
    if anchor is None:
        return np.floor(y * (room_y + 1)).astype(int), np.floor(x * (room_x + 1)).astype(int)
    left, top, right, bottom = anchor
    y = np.clip(top - shape[0] + y * (bottom - top + shape[0]), 0, room_y)
    x = np.clip(left - shape[1] + x * (right - left + shape[1]), 0, room_x)
    return y.astype(int), x.astype(int)


def _ious(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU of each xyxy box of (M, 4) with each of (N, 4): (M, N)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0.0, None), -1)
    area_a, area_b = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) for boxes in (a, b))
    ious: NDArray[np.float64] = shared / np.maximum(area_a[:, None] + area_b[None, :] - shared, 1e-9)
    return ious


def _all_visible(
    masks: Sequence[Mask], corners: Sequence[Corner], size: tuple[int, int], min_visible: float, *, touching: bool
) -> bool:
    """Check the silhouettes: none mostly covered by all others; with `touching`, some do overlap."""
    if len(masks) < 2:
        return True
    placed = np.stack([paste(mask, corner, size) for mask, corner in zip(masks, corners, strict=True)])
    depth = placed.sum(0, dtype=np.int8)
    shared = (placed & (depth > 1)).reshape(len(masks), -1).sum(1)
    whole = placed.reshape(len(masks), -1).sum(1)
    if touching and not (shared >= 0.03 * whole).any():
        return False
    return bool((shared <= (1.0 - min_visible) * whole).all())
