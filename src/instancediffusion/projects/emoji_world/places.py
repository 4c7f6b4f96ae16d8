"""Locations in a picture as phrases that are certainly true: borderline cases have none."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Placed = NDArray[np.float32] | Sequence[float]

_SIDES = {(-1, 0): "on the left", (1, 0): "on the right", (0, -1): "at the top", (0, 1): "at the bottom"}
_CORNERS = {
    (x, y): f"in the {rows} {columns} corner"
    for y, rows in ((-1, "top"), (1, "bottom"))
    for x, columns in ((-1, "left"), (1, "right"))
}
_MIDDLE = "in the middle"

PLACES: tuple[str, ...] = (*_SIDES.values(), *_CORNERS.values(), _MIDDLE)
"""Every phrase."""


def places(box: Placed) -> tuple[str, ...]:
    """Describe the location of a box.

    Args:
        box: x0 y0 x1 y1, fractions of the canvas.

    Returns:
        The phrases out of `PLACES` that hold, the most specific last. "On the left" requires the box's centre in the
        left 36 % and its right edge in the left 60 %; a corner requires two sides at once; "in the middle" that the
        box's centre is no further than 10 % of the canvas from the canvas's own. Most boxes get one or none.
    """
    x0, y0, x1, y1 = (float(v) for v in box)
    across, down = _end(x0, x1), _end(y0, y1)
    found = [_SIDES[key] for key in ((across, 0), (0, down)) if key in _SIDES]
    if across and down:
        found.append(_CORNERS[across, down])
    if max(abs(x0 + x1 - 1.0), abs(y0 + y1 - 1.0)) < 0.2:
        found.append(_MIDDLE)
    return tuple(found)


def _end(low: float, high: float) -> int:
    """Return -1 where an interval lies at the low end of 0..1, 1 at the high end, else 0."""
    middle = (low + high) / 2.0
    if middle < 0.36 and high < 0.6:
        return -1
    return 1 if middle > 0.64 and low > 0.4 else 0
