"""Where two objects are in a picture, if nobody told: the places at which their drawings explain most of it.

A place has to hold the told point or most of the told stroke. The search climbs from two starts, in both depth orders:
from the places that were meant, and from where each object by itself is best explained, at many sizes. The best of the
four is taken; which object is in front is then measured there as everywhere, see `ownership`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from instancediffusion.evaluation.drawings import Drawings, Drawn, Floats
from instancediffusion.evaluation.drawings.search import (
    ROUNDS,
    best_place,
    drawn_small,
    explained,
    holds,
    places_around,
    places_near,
    reduced,
    told_points,
)
from instancediffusion.evaluation.truth import TrueInstance

Places = tuple[Floats, Floats]


def fitted_places(image: Image.Image, pair: Sequence[TrueInstance], drawings: Drawings) -> Places | None:
    """Find two objects.

    Args:
        image: the picture.
        pair: the objects; their boxes are those that were meant.
        drawings: of the world's objects.

    Returns:
        Their boxes x0 y0 x1 y1, fractions; None if one of them has no drawing or no box to start from.
    """
    first, second = pair
    if first.box is None or second.box is None:
        return None
    small = reduced(image)
    looked = (_first_look(small, first, first.box, drawings), _first_look(small, second, second.box, drawings))
    starts = ((first.box, second.box), looked)
    found = [_fit(small, (first, second), start, front, drawings) for start in starts for front in (0, 1)]
    known = [one for one in found if one is not None]
    return max(known, key=lambda one: one[1])[0] if known else None


def _first_look(image: Floats, wanted: TrueInstance, box: Floats, drawings: Drawings) -> Floats:
    """Find the place that explains most by itself, round what was told; `box` (4,) is the one asked for."""
    points = told_points(wanted)
    if points is None:
        return box
    place, _ = best_place(image, wanted, places_around(points, box[2:] - box[:2]), drawings)
    return box if place is None else place


def _fit(
    image: Floats, pair: tuple[TrueInstance, TrueInstance], start: Places, front: int, drawings: Drawings
) -> tuple[Places, float] | None:
    """Climb from the start, one object after the other, in steps that get smaller."""
    places, told = list(start), [told_points(item) for item in pair]
    drawn = [drawn_small(item, place, drawings) for item, place in zip(pair, places, strict=True)]
    if drawn[0] is None or drawn[1] is None:
        return None
    best = -np.inf
    for move, factors in ROUNDS:
        for turn in (front, 1 - front):
            for place in places_near(places[turn], move, factors):
                if not holds(place, told[turn]):
                    continue
                candidate = drawn_small(pair[turn], place, drawings)
                assert candidate is not None
                both = (candidate, drawn[1]) if turn == 0 else (drawn[0], candidate)
                value = _explained(image, both, front)
                if value > best:
                    best, places[turn] = value, place
            drawn[turn] = drawn_small(pair[turn], places[turn], drawings)
            assert drawn[turn] is not None
    return (places[0], places[1]), best


def _explained(image: Floats, drawn: tuple[Drawn, Drawn], front: int) -> float:
    """Sum of what the visible pixels of two silhouettes explain."""
    near, far = drawn[front], drawn[1 - front]
    return explained(image, near) + explained(image, far, ~near.inside)
