"""From the predictions at each feature-map position to object proposals.

A position takes part if it shows an object with a probability above one half; it predicts the box of that object. The
position with the highest confidence (probability of an object times predicted box quality) proposes its box; positions
whose boxes overlap it by IoU >= `ALIKE` join the proposal, and the most confident of the rest proposes the next. A
proposal of fewer than `LEAST_CELLS` positions, or whose mean box is like that of an earlier one, is dropped. Then every
position is assigned to the proposal whose mean box overlaps its own most, if IoU >= `BELONGS`, and the boxes are
averaged again. The reader classifies each object.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from instancediffusion.evaluation.seen import Floats
from instancediffusion.geometry import box_iou

ALIKE = 0.55
BELONGS = 0.3
LEAST_CELLS = 4
MOST_OBJECTS = 32


@dataclass(frozen=True, eq=False)
class Group:
    """Feature-map positions that belong to one object.

    Attributes:
        cells: (M,) indices into the positions that were grouped.
        box: (4,) weighted mean of their boxes.
        trust: their mean confidence, 0..1.
    """

    cells: npt.NDArray[np.int64]
    box: Floats
    trust: float


def group_cells(boxes: Floats, trust: Floats) -> list[Group]:
    """Group feature-map positions by the boxes they predict; see the module.

    Args:
        boxes: (M, 4) predicted at the positions that show an object.
        trust: (M,) confidence, positive.

    Returns:
        The objects, the most confident proposal first; some positions may belong to none.
    """
    means = _proposals(boxes, trust)
    for _ in range(2):
        if not len(means):
            return []
        overlap = box_iou(boxes, means)
        owner = np.where(overlap.max(1) >= BELONGS, overlap.argmax(1), -1)
        groups = [_group(np.flatnonzero(owner == index), boxes, trust) for index in range(len(means))]
        groups = [group for group in groups if len(group.cells) >= LEAST_CELLS]
        means = np.array([group.box for group in groups]).reshape(-1, 4)
    return groups


def _proposals(boxes: Floats, trust: Floats) -> Floats:
    """Return the mean box of each proposed object, (n, 4)."""
    free = np.ones(len(boxes), bool)
    found: list[Floats] = []
    order = np.argsort(-trust, kind="stable")
    for seed in order:
        if not free[seed] or len(found) == MOST_OBJECTS:
            continue
        rest = np.flatnonzero(free)
        alike = rest[box_iou(boxes[seed], boxes[rest])[0] >= ALIKE]
        free[alike] = False
        free[seed] = False
        mean = _group(alike, boxes, trust).box
        duplicate = bool(found) and box_iou(mean, np.array(found)).max() >= ALIKE
        if len(alike) >= LEAST_CELLS and not duplicate:
            found.append(mean)
    return np.array(found).reshape(-1, 4)


def _group(positions: npt.NDArray[np.int64], boxes: Floats, trust: Floats) -> Group:
    if not len(positions):
        return Group(positions, np.zeros(4), 0.0)
    mean = np.average(boxes[positions], axis=0, weights=trust[positions])
    return Group(positions, mean, float(trust[positions].mean()))
