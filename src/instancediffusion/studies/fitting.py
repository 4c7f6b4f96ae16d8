"""Where two objects are in a picture, if nobody told: the places at which their drawings explain most of it.

A place has to hold the told point or most of the told stroke. The search climbs from two starts, in both depth orders:
from the places that were meant, and from where a judge finds each object. The best of the four is taken; which object
is in front is then measured there as everywhere, see `evaluation.orders`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from instancediffusion.evaluation.drawings import Drawings, DrawingsJudge, Drawn, Floats
from instancediffusion.evaluation.drawings.search import (
    ROUNDS,
    Worth,
    drawn_small,
    explained,
    holds,
    places_near,
    reduced,
    told_points,
    worth_of,
)
from instancediffusion.evaluation.truth import TrueInstance, Truth

Places = tuple[Floats, Floats]


def fitted_places(image: Image.Image, truth: Truth, pair: tuple[int, int], judge: DrawingsJudge) -> Places | None:
    """Find two objects.

    Args:
        image: the picture.
        truth: what it was to show; boxes are those that were meant.
        pair: which two of its instances are looked for.
        judge: finds each.

    Returns:
        Their boxes x0 y0 x1 y1, fractions; None if one of them has no drawing or no box to start from.
    """
    first, second = wanted = [truth.instances[index] for index in pair]
    if first.box is None or second.box is None:
        return None
    small = reduced(image)
    drawn, found, ground = judge.locate(image, truth)
    worth = worth_of(small, ground, [one for k, one in enumerate(drawn) if one is not None and k not in pair])
    starts: list[Places] = [(first.box, second.box)]
    looked = [found[index] for index in pair]
    if looked[0] is not None and looked[1] is not None:
        starts.append((looked[0], looked[1]))
    fits = [_fit(small, wanted, start, front, worth, judge.drawings) for start in starts for front in (0, 1)]
    known = [one for one in fits if one is not None]
    return max(known, key=lambda one: one[1])[0] if known else None


def _fit(
    image: Floats, pair: Sequence[TrueInstance], start: Places, front: int, worth: Worth, drawings: Drawings
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
                value = _explained(image, both, front, worth)
                if value > best:
                    best, places[turn] = value, place
            drawn[turn] = drawn_small(pair[turn], places[turn], drawings)
            assert drawn[turn] is not None
    return (places[0], places[1]), best


def _explained(image: Floats, drawn: tuple[Drawn, Drawn], front: int, worth: Worth) -> float:
    """Sum of what the visible pixels of two silhouettes explain."""
    near, far = drawn[front], drawn[1 - front]
    return explained(image, near, None, worth) + explained(image, far, ~near.inside, worth)
