"""Boxes: conversions, clipping, overlap. A box is (x0, y0, x1, y1), upper left and lower right corner."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def xywh_to_xyxy(boxes: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Turn (..., 4) boxes given as corner and extent (x, y, width, height) into two corners."""
    array = np.array(boxes, dtype=np.float64)
    array[..., 2:] += array[..., :2]
    return array


def xyxy_to_xywh(boxes: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Turn (..., 4) boxes given as two corners into corner and extent (x, y, width, height)."""
    array = np.array(boxes, dtype=np.float64)
    array[..., 2:] -= array[..., :2]
    return array


def clip_boxes(boxes: npt.ArrayLike, width: float, height: float) -> npt.NDArray[np.float64]:
    """Cut (..., 4) boxes off at the canvas 0..width x 0..height, in the unit of the boxes."""
    return np.clip(np.asarray(boxes, dtype=np.float64), 0.0, (width, height, width, height))


def box_area(boxes: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the area (...) of (..., 4) boxes, 0 for one turned inside out."""
    array = np.asarray(boxes, dtype=np.float64)
    sides = np.maximum(array[..., 2:] - array[..., :2], 0.0)
    area: npt.NDArray[np.float64] = sides[..., 0] * sides[..., 1]
    return area


def box_iou(first: npt.ArrayLike, second: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return intersection over union (n, m) of every pair of (n, 4) and (m, 4) boxes; 0 where both are empty."""
    a = np.asarray(first, dtype=np.float64).reshape(-1, 1, 4)
    b = np.asarray(second, dtype=np.float64).reshape(1, -1, 4)
    corners = [np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])]
    shared = box_area(np.concatenate(corners, axis=-1))
    union = box_area(a) + box_area(b) - shared
    iou: npt.NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou


def mask_box(mask: npt.NDArray[np.bool_]) -> tuple[float, float, float, float] | None:
    """Return the tight box of a (height, width) bitmap in fractions of the canvas, or None if nothing is set."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return None
    height, width = mask.shape
    return (columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height)


def points_box(points: Sequence[tuple[float, float]]) -> tuple[float, float, float, float]:
    """Return the tight box of points (x, y), in their unit; it may have no area."""
    xs, ys = zip(*points, strict=True)
    return (min(xs), min(ys), max(xs), max(ys))
