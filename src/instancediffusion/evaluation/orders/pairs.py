"""From one overlap to a verdict, and from the verdicts on both orders of a pair to its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from instancediffusion.scene import Instance

from ..seen import Overlap
from ..truth import TrueInstance

Row = dict[str, Any]
"""Numbers of one picture of a pair, JSON-like; what is undecided is None or absent."""


def stated_front(first: Instance, second: Instance) -> int | None:
    """Return which of two instances the scene states to be nearer, 0 or 1; None if it states neither."""
    if first.z_order is None or second.z_order is None or first.z_order == second.z_order:
        return None
    return int(second.z_order > first.z_order)


def in_front(asked: int | None, overlap: Overlap | None) -> Row:
    """Return what an overlap shows of a pair's order.

    Args:
        asked: which of the two is asked to be nearer, 0 or 1; None if no order is.
        overlap: of the pair as it is detected; None is one that does not decide.

    Returns:
        `front` (0, 1 or None), `first_front` (1, 0, or a half where nothing decides), `blend` (the blend index), and
        `right`: 1 if the one asked for is in front, else 0; None if no order is asked.
    """
    front = None if overlap is None else overlap.front
    return {
        "front": front,
        "first_front": 0.5 if front is None else float(front == 0),
        "blend": None if overlap is None else overlap.blend,
        "right": None if asked is None else float(front == asked),
    }


def lower_and_larger(first: TrueInstance, second: TrueInstance) -> Row:
    """Say which of two stands lower and which is larger, 0 or 1, if both their boxes are known and differ in it."""
    if first.box is None or second.box is None:
        return {}
    pairs = {"lower": (first.box[3], second.box[3]), "larger": (first.size or 0.0, second.size or 0.0)}
    return {name: int(other > one) for name, (one, other) in pairs.items() if not np.isclose(one, other)}


def pair_numbers(rows: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """Put the two pictures of a pair together, one of each order.

    Args:
        rows: of `in_front`, with `front_asked` and as far as known `lower` and `larger`.

    Returns:
        `pair_right`: both orders come out as asked. `flipped`: another one is in front when the order is
        reversed. `prior`: fraction in which the first is in front, whatever is asked, less a half: -.5 to .5, 0 is
        unbiased.
        `prior_lower`, `prior_larger`: the same of the one that stands lower, and of the larger one. None if these are
        not one picture of either order, or undecided.
    """
    if len(rows) != 2 or {row.get("front_asked") for row in rows} != {0, 1}:
        return None
    if any("first_front" not in row for row in rows):
        return None
    fronts = [row.get("front") for row in rows]
    first = float(np.mean([row["first_front"] for row in rows]))
    found = {
        "pair_right": float(all(row.get("right") for row in rows)),
        "flipped": float(None not in fronts and fronts[0] != fronts[1]),
        "prior": first - 0.5,
    }
    for name in ("lower", "larger"):
        if (which := rows[0].get(name)) is not None:
            found[f"prior_{name}"] = (first - 0.5) * (1 if which == 0 else -1)
    return found
