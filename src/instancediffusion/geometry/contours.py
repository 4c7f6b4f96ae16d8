"""Outlines of a bitmap by marching squares, in a fixed order of contours and vertices.

The mask points the published model was trained on follow the order in which one widely used implementation
(scikit-image, `measure.find_contours`; Lorensen and Cline 1987) walks the outlines, and where it starts. This module
gives the same vertices in the same order, from numpy and plain Python: cells are found all at once, and only the
cells that an outline crosses are chained one by one.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_TOP, _BOTTOM, _LEFT, _RIGHT = range(4)
# Segments of a cell by which corners are set (1 upper left, 2 upper right, 4 lower left, 8 lower right). Set pixels
# lie on the same side of every segment; of two opposite corners each is cut off by itself.
_SEGMENTS: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((_TOP, _LEFT),),
    2: ((_RIGHT, _TOP),),
    3: ((_RIGHT, _LEFT),),
    4: ((_LEFT, _BOTTOM),),
    5: ((_TOP, _BOTTOM),),
    6: ((_RIGHT, _TOP), (_LEFT, _BOTTOM)),
    7: ((_RIGHT, _BOTTOM),),
    8: ((_BOTTOM, _RIGHT),),
    9: ((_TOP, _LEFT), (_BOTTOM, _RIGHT)),
    10: ((_BOTTOM, _TOP),),
    11: ((_BOTTOM, _LEFT),),
    12: ((_LEFT, _RIGHT),),
    13: ((_TOP, _RIGHT),),
    14: ((_LEFT, _TOP),),
}
_STEPS = np.full((16, 2, 2), -1)
for _case, _pairs in _SEGMENTS.items():
    _STEPS[_case, : len(_pairs)] = _pairs


def outlines(mask: npt.NDArray[np.bool_], *, at_background: bool) -> list[npt.NDArray[np.float64]]:
    """Return every outline of a bitmap.

    Args:
        mask: (height, width) bool.
        at_background: put vertices on the unset pixel next to an edge (the iso-contour at level 0, which the
            published code asks for) instead of half-way (level 0.5).

    Returns:
        One (k, 2) array for each outline, (row, column) in units of pixels, (0, 0) being the centre of the first
        pixel. An outline that closes repeats its first vertex; one that meets the border stays open.
    """
    starts, ends, stride = _segments(mask, at_background)
    chains = _chain(starts, ends)
    outline_codes = (np.array(chain, dtype=np.int64) for chain in chains)
    return [np.stack([codes // stride, codes % stride], axis=1) / 2 for codes in outline_codes]


def _segments(mask: npt.NDArray[np.bool_], at_background: bool) -> tuple[list[int], list[int], int]:
    """Return start and end of each segment in reading order, as codes `2 row * stride + 2 column`, and the stride."""
    set_ = np.asarray(mask, dtype=np.int64)
    corners = np.stack([set_[:-1, :-1], set_[:-1, 1:], set_[1:, :-1], set_[1:, 1:]])
    case = corners[0] + 2 * corners[1] + 4 * corners[2] + 8 * corners[3]
    rows, columns = np.nonzero((case > 0) & (case < 15))
    upper_left, upper_right, lower_left = (corner[rows, columns] for corner in corners[:3])

    def along(first: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return 2 * first if at_background else np.ones_like(first)

    stride = 2 * mask.shape[1] + 1
    row, column = 2 * rows, 2 * columns
    vertices = np.stack(
        [
            row * stride + column + along(upper_left),
            (row + 2) * stride + column + along(lower_left),
            (row + along(upper_left)) * stride + column,
            (row + along(upper_right)) * stride + column + 2,
        ]
    )
    steps = _STEPS[case[rows, columns]]  # (cells, 2 segments, 2 ends)
    cell = np.arange(len(rows))[:, None]
    start, end = vertices[steps[..., 0], cell], vertices[steps[..., 1], cell]
    # At level 0 the two ends of a segment may be one pixel: neighbouring cells carry the outline past it.
    keep = (steps[..., 0] >= 0) & (start != end)
    return start[keep].tolist(), end[keep].tolist(), stride


@dataclass(eq=False, slots=True)
class _Chain:
    number: int
    vertices: deque[int]


def _chain(starts: list[int], ends: list[int]) -> list[list[int]]:
    """Join segments that share an end into chains; a chain keeps the number of its earliest segment."""
    chains: dict[int, _Chain] = {}
    by_first: dict[int, _Chain] = {}
    by_last: dict[int, _Chain] = {}
    created = 0
    for start, end in zip(starts, ends, strict=True):
        after, before = by_first.pop(end, None), by_last.pop(start, None)
        if after is None and before is None:
            chain = _Chain(created, deque((start, end)))
            chains[created] = by_first[start] = by_last[end] = chain
            created += 1
        elif before is None and after is not None:
            after.vertices.appendleft(start)
            by_first[start] = after
        elif after is None and before is not None:
            before.vertices.append(end)
            by_last[end] = before
        elif after is before and before is not None:
            before.vertices.append(end)  # the outline closes
        elif before is not None and after is not None:
            if after.number > before.number:
                kept, gone = before, after
                before.vertices.extend(after.vertices)
            else:
                kept, gone = after, before
                after.vertices.extendleft(reversed(before.vertices))
                # Outlines may touch at a vertex: then this entry is not the chain's own, and goes all the same.
                by_first.pop(before.vertices[0], None)
            chains.pop(gone.number, None)
            by_first[kept.vertices[0]] = by_last[kept.vertices[-1]] = kept
    return [list(chain.vertices) for _, chain in sorted(chains.items())]
