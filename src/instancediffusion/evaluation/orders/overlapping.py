"""The pairs of a scene whose depth order can be asked for and seen, and what then should be visible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from instancediffusion.scene import Instance, Scene

from ..seen import Bools
from .ownership import LEAST_SHARE, told_extent

LEAST_FREE = 0.1
"""Fraction of its extent that each of a pair must have outside of the other's: one hidden whole shows no order."""

CANVAS_PX = 512
"""Longer side of the canvas that overlaps are looked for on, if the scene's is larger: masks of 1000 instances fit."""


@dataclass
class Pairs:
    """The pairs of a scene.

    Attributes:
        pairs: indices (i, j) of two instances, i < j, whose given extents overlap so that the one in front can be seen.
        left_out: reason -> pairs, or instances, that are not asked for.
    """

    pairs: list[tuple[int, int]] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    def leave_out(self, reason: str, count: int = 1) -> None:
        """Count what is not asked for."""
        if count:
            self.left_out[reason] = self.left_out.get(reason, 0) + count


NO_EXTENT = "instances without a box or mask"
HIDDEN = "pairs of which one would be hidden by the other"
COVERED = "pairs whose overlap lies behind a third instance"


def overlapping_pairs(scene: Scene) -> Pairs:
    """Find the pairs of a scene whose order can be asked for and seen.

    Extents are masks, else boxes. They have to share 1/2048 of the canvas, more than a third
    instance covers that is stated to be nearer than both; and each has a tenth of its own outside of the other's.
    """
    scale = min(1.0, CANVAS_PX / max(scene.width, scene.height))
    size, found = (max(1, round(scene.height * scale)), max(1, round(scene.width * scale))), Pairs()
    extents = {index: told_extent(one, size) for index, one in enumerate(scene.instances)}
    given = {index: extent for index, extent in extents.items() if extent is not None}
    found.leave_out(NO_EXTENT, len(extents) - len(given))
    boxes = {index: _bounds(extent) for index, extent in given.items()}
    for first, second in combinations(given, 2):
        if not _meet(boxes[first], boxes[second]):
            continue
        shared = given[first] & given[second]
        if shared.sum() < LEAST_SHARE * shared.size:
            continue
        if any((given[k] & ~shared).sum() < LEAST_FREE * given[k].sum() for k in (first, second)):
            found.leave_out(HIDDEN)
        elif _uncovered(scene, given, first, second).sum() < LEAST_SHARE * shared.size:
            found.leave_out(COVERED)
        else:
            found.pairs.append((first, second))
    return found


def visible_masks(scene: Scene, indices: Sequence[int], size: tuple[int, int]) -> list[Bools | None]:
    """Return what should be visible of some instances' masks (H, W): less the masks of all that is stated to be nearer.

    None where no mask is given. What instances given by boxes only hide is unknown, and not taken off.
    """
    masks = [told_extent(one, size) if one.mask is not None else None for one in scene.instances]
    found: list[Bools | None] = []
    for index in indices:
        visible = masks[index]
        for other, mask in enumerate(masks):
            if visible is not None and mask is not None and _nearer(scene.instances[other], scene.instances[index]):
                visible = visible & ~mask
        found.append(visible)
    return found


def _nearer(one: Instance, than: Instance) -> bool:
    return one.z_order is not None and than.z_order is not None and one.z_order > than.z_order


def _uncovered(scene: Scene, extents: Mapping[int, Bools], first: int, second: int) -> Bools:
    """The overlap of two, less the extents of third ones that are stated to be nearer than both."""
    shared = extents[first] & extents[second]
    pair = [scene.instances[index] for index in (first, second)]
    for index, extent in extents.items():
        if index not in (first, second) and all(_nearer(scene.instances[index], one) for one in pair):
            shared &= ~extent
    return shared


def _bounds(extent: Bools) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(extent.any(1)), np.flatnonzero(extent.any(0))
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1) if len(rows) else (0, 0, 0, 0)


def _meet(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return max(one[0], other[0]) < min(one[2], other[2]) and max(one[1], other[1]) < min(one[3], other[3])
