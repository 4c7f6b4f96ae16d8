"""Which of two overlapping objects is in front: from masks that show it, or from depth; else it stays unknown.

A relation of objects i < j is 1 if i is in front of j, -1 if behind, 0 if unknown. Only pairs whose boxes
overlap have one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from .protocols import PixelBox

Bools = npt.NDArray[np.bool_]
Relations = dict[tuple[int, int], int]
_LEAST_PIXELS = 16


def overlapping(boxes: Sequence[PixelBox | None]) -> Iterable[tuple[int, int, tuple[slice, slice]]]:
    """Pairs i < j of boxes that share an area, with the pixels (rows, columns) that the shared part touches."""
    for j, second in enumerate(boxes):
        for i, first in enumerate(boxes[:j]):
            if first is None or second is None:
                continue
            x0, y0 = max(first[0], second[0]), max(first[1], second[1])
            x1, y1 = min(first[2], second[2]), min(first[3], second[3])
            if x1 > x0 and y1 > y0:
                rows = slice(int(np.floor(y0)), int(np.ceil(y1)))
                yield i, j, (rows, slice(int(np.floor(x0)), int(np.ceil(x1))))


def order_by_depth(
    boxes: Sequence[PixelBox | None],
    masks: Sequence[Bools | None],
    nearness: npt.NDArray[np.float32],
    margin: float,
) -> Relations:
    """Relations of overlapping objects from a map of nearness.

    The two are compared where they meet: the median nearness of each one's own pixels inside the common part of their
    boxes; where it shows fewer than 16 there, in twice that part, else of all its pixels. Pixels of both masks count
    for neither.

    Args:
        boxes: of the objects, in pixels; None if an object has none.
        masks: (H, W) each, the visible pixels of the objects; an object without one has no order.
        nearness: (H, W), larger = nearer.
        margin: a smaller difference than this fraction of the picture's range (5th to 95th percentile) is none.
    """
    low, high = np.percentile(nearness, (5, 95))
    least = margin * float(high - low)
    found: Relations = {}
    for i, j, part in overlapping(boxes):
        first, second = _median(masks[i], masks[j], part, nearness), _median(masks[j], masks[i], part, nearness)
        found[i, j] = 0
        if first is not None and second is not None and abs(first - second) > least:
            found[i, j] = 1 if first > second else -1
    return found


def _median(
    own: Bools | None, other: Bools | None, part: tuple[slice, slice], nearness: npt.NDArray[np.float32]
) -> float | None:
    if own is None or other is None:
        return None
    for region in (part, (_doubled(part[0]), _doubled(part[1])), (slice(None), slice(None))):
        chosen = own[region] & ~other[region]
        if np.count_nonzero(chosen) >= _LEAST_PIXELS:
            return float(np.median(nearness[region][chosen]))
    return None


def _doubled(part: slice) -> slice:
    more = (part.stop - part.start + 1) // 2
    return slice(max(part.start - more, 0), part.stop + more)


def order_by_visibility(
    boxes: Sequence[PixelBox | None], whole: Sequence[Bools | None], seen: Sequence[Bools | None], share: float
) -> Relations:
    """Relations of overlapping objects from amodal annotations, such as those of COCOA and KINS.

    Where two whole (amodal) masks overlap, the pixels visible there belong to the one in front.

    Args:
        boxes: of the whole objects, in pixels.
        whole: (H, W) each, amodal masks.
        seen: (H, W) each, visible masks.
        share: the one in front must own more of the visible overlap than the other by at least this fraction of it.
    """
    found: Relations = {}
    for i, j, part in overlapping(boxes):
        found[i, j] = 0
        masks = (whole[i], whole[j], seen[i], seen[j])
        parts = [mask[part] for mask in masks if mask is not None]
        if len(parts) < 4:
            continue
        both = parts[0] & parts[1]
        first, second = np.count_nonzero(both & parts[2] & ~parts[3]), np.count_nonzero(both & parts[3] & ~parts[2])
        if first != second and abs(first - second) >= share * (first + second):
            found[i, j] = 1 if first > second else -1
    return found


def layers(count: int, relations: Mapping[tuple[int, int], int]) -> list[int | None]:
    """Numbers of layers (`z_order`) that state relations and none that is unknown: larger = nearer, None = no order.

    An order of layers is a claim about every overlapping pair with two different numbers. An object that has an
    overlap of unknown order, or is part of a circle (each in front of the next), loses its number, the one with most
    such overlaps first, until what is stated is known. Objects that overlap nothing have no number.

    Args:
        count: how many objects there are.
        relations: (i, j) -> 1 (i in front of j), -1, or 0 (unknown).
    """
    kept = set(range(count))
    while True:
        doubts = dict.fromkeys(kept, 0)
        behind: dict[int, set[int]] = {index: set() for index in kept}
        for (i, j), relation in relations.items():
            if i not in kept or j not in kept:
                continue
            if relation:
                front, back = (i, j) if relation > 0 else (j, i)
                behind[front].add(back)
            else:
                doubts[i] += 1
                doubts[j] += 1
        worst = max(kept, key=lambda index: (doubts[index], -len(behind[index]), index), default=None)
        if worst is not None and doubts[worst]:
            kept.discard(worst)
            continue
        heights = _heights(behind)
        circle = kept - heights.keys()
        if not circle:
            break
        kept.discard(max(circle, key=lambda index: (len(behind[index] & circle), index)))
    stated = set(behind) & {index for front, backs in behind.items() for index in (front, *backs) if backs}
    return [heights[index] if index in stated else None for index in range(count)]


def _heights(behind: Mapping[int, set[int]]) -> dict[int, int]:
    """The longest chain of objects behind each; those that lead into a circle are left out."""
    found: dict[int, int] = {}
    left = dict(behind)
    while ready := [index for index, backs in left.items() if backs <= found.keys()]:
        for index in ready:
            found[index] = max((found[back] + 1 for back in left.pop(index)), default=0)
    return found
