"""From what is said of each cell to objects.

The rule. Every cell that more likely than not shows an object names the box of the object it belongs to. The most
trusted cell (probability of an object times the predicted quality of its box) proposes its box; cells whose boxes
overlap it by IoU >= `ALIKE` are that object, and the next most trusted cell of the rest proposes the next. An object
of fewer than `LEAST_CELLS` cells, or whose mean box is like that of an earlier one, is none. Then every cell goes to
the object whose mean box is most like its own, if IoU >= `BELONGS`, and boxes are averaged anew. The reader
says what each object is.
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
    """Cells that are one object.

    Attributes:
        cells: (M,) indices into the cells that were grouped.
        box: (4,) weighted mean of their boxes.
        trust: mean trust of its cells, 0..1.
    """

    cells: npt.NDArray[np.int64]
    box: Floats
    trust: float


def group_cells(boxes: Floats, trust: Floats) -> list[Group]:
    """Group cells by the boxes they name; see the module.

    Args:
        boxes: (M, 4) of the cells that show an object.
        trust: (M,) positive.

    Returns:
        The objects, the most trusted proposal first; some cells may belong to none.
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
        known = bool(found) and box_iou(mean, np.array(found)).max() >= ALIKE
        if len(alike) >= LEAST_CELLS and not known:
            found.append(mean)
    return np.array(found).reshape(-1, 4)


def _group(cells: npt.NDArray[np.int64], boxes: Floats, trust: Floats) -> Group:
    if not len(cells):
        return Group(cells, np.zeros(4), 0.0)
    return Group(cells, np.average(boxes[cells], axis=0, weights=trust[cells]), float(trust[cells].mean()))
