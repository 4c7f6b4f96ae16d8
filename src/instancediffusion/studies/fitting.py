"""Where two objects are in a picture, if nobody told: the places at which their drawings explain most of it.

A place explains the pixels of the object's silhouette: each counts `WORTH` less its distance to the drawing's pixel,
so that larger silhouettes are better as long as they fit. It has to hold the told point or most of the told stroke.
The search climbs from two starts, in both depth orders: from the places that were meant, and from where each object
by itself is best explained, at many sizes. The best of the four is taken; which object is in front is then measured
there as everywhere, see `ownership`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import numpy.typing as npt
from PIL import Image

from instancediffusion.evaluation.truth import TrueInstance

from .ownership import Drawings, Drawn, Floats

SIDE_PX = 64
"""Side of the pictures that are compared."""

WORTH, CLIP = 0.12, 0.3
"""What a pixel is worth, and the largest distance that counts; RGB distances as shares of black to white."""

SIZES, OFFSETS = (0.45, 0.6, 0.8, 1.0, 1.25), (-0.4, -0.2, 0.0, 0.2, 0.4)
"""First look: sizes in those asked for, and how far its middle is from what was told, in sides."""

HELD = 0.7
"""Least share of the told points inside of a place."""

ROUNDS = (
    (0.05, (0.85, 1.0, 1.15)),
    (0.025, (0.93, 1.0, 1.07)),
    (0.0125, (0.97, 1.0, 1.03)),
)
"""In each round after that, how far a place is moved (in canvases) and by what its size is multiplied."""

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
    small = np.asarray(image.convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX), np.float64)
    looked = (_first_look(small, first, first.box, drawings), _first_look(small, second, second.box, drawings))
    starts = ((first.box, second.box), looked)
    found = [_fit(small, (first, second), start, front, drawings) for start in starts for front in (0, 1)]
    known = [one for one in found if one is not None]
    return max(known, key=lambda one: one[1])[0] if known else None


def _first_look(image: Floats, wanted: TrueInstance, box: Floats, drawings: Drawings) -> Floats:
    """Find the place that explains most by itself, round what was told; `box` (4,) is the one asked for."""
    points = _told(wanted)
    if points is None:
        return box
    middle, sides = points.mean(0), box[2:] - box[:2]
    best, place = -np.inf, box
    for factor, dx, dy in product(SIZES, OFFSETS, OFFSETS):
        half = sides * factor / 2
        centre = middle + np.array([dx, dy]) * sides * factor
        tried = np.concatenate([centre - half, centre + half])
        drawn = _draw(wanted, tried, drawings) if _holds(tried, points) else None
        if drawn is not None and (value := _explained(image, (drawn,), 0)) > best:
            best, place = value, tried
    return place


def _told(wanted: TrueInstance) -> Floats | None:
    """(P, 2): the told points of an object; None if it was told otherwise."""
    if wanted.scribble is not None:
        return wanted.scribble
    return None if wanted.point is None else np.array([wanted.point], np.float64)


def _holds(box: Floats, points: Floats | None) -> bool:
    return points is None or float(((points >= box[:2]) & (points <= box[2:])).all(1).mean()) >= HELD


def _fit(
    image: Floats, pair: tuple[TrueInstance, TrueInstance], start: Places, front: int, drawings: Drawings
) -> tuple[Places, float] | None:
    """Climb from the start, one object after the other, in steps that get smaller."""
    places, told = list(start), [_told(item) for item in pair]
    drawn = [_draw(item, place, drawings) for item, place in zip(pair, places, strict=True)]
    if drawn[0] is None or drawn[1] is None:
        return None
    best = -np.inf
    for move, factors in ROUNDS:
        for turn in (front, 1 - front):
            origin = places[turn]
            for dx, dy, factor in product((-move, 0.0, move), (-move, 0.0, move), factors):
                place = _moved(origin, dx, dy, factor)
                if not _holds(place, told[turn]):
                    continue
                candidate = _draw(pair[turn], place, drawings)
                both = (candidate, drawn[1]) if turn == 0 else (drawn[0], candidate)
                value = _explained(image, both, front)
                if value > best:
                    best, places[turn] = value, place
            drawn[turn] = _draw(pair[turn], places[turn], drawings)
    return (places[0], places[1]), best


def _draw(wanted: TrueInstance, place: Floats, drawings: Drawings) -> Drawn | None:
    return drawings.place(wanted, place, (SIDE_PX, SIDE_PX))


def _moved(box: Floats, dx: float, dy: float, factor: float) -> Floats:
    x, y = (box[0] + box[2]) / 2 + dx, (box[1] + box[3]) / 2 + dy
    half: npt.NDArray[np.float64] = np.array([box[2] - box[0], box[3] - box[1]]) * factor / 2
    return np.array([x - half[0], y - half[1], x + half[0], y + half[1]])


def _explained(image: Floats, drawn: Sequence[Drawn | None], front: int) -> float:
    """Sum of what the visible pixels of the silhouettes explain, of one object or of two."""
    total, covered = 0.0, np.zeros(image.shape[:2], bool)
    for index in (front, 1 - front)[: len(drawn)]:
        one = drawn[index]
        assert one is not None
        shown = one.inside & ~covered
        covered |= one.inside
        distance = np.linalg.norm(image[shown] - one.pixels[shown], axis=-1) / (255 * 3**0.5)
        total += float((WORTH - np.minimum(distance, CLIP)).sum())
    return total
