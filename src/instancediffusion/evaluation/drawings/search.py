"""Where an object is in a picture: at the place where its drawing explains most of it.

A place explains the pixels of the object's silhouette: each counts what it is worth less its distance to the drawing's
pixel. What it is worth is its distance to what explains it already, the ground or another object (see `worth_of`): then
the drawing is laid over all that differs from these as it does, and over nothing else. Where the ground is not known,
it is `WORTH`, so that larger silhouettes are better as long as they fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..truth import TrueInstance
from .placing import Bools, Drawings, Drawn, Floats

SIDE_PX = 64
"""Side of the pictures that are compared."""

WORTH, CLIP = 0.12, 0.3
"""What a pixel is worth on unknown ground, and the largest distance that counts; RGB distances as shares of black to
white."""

LEAST_WORTH = 0.01
"""What a pixel is worth that is explained already."""

SIZES, OFFSETS = (0.45, 0.6, 0.8, 1.0, 1.25), (-0.4, -0.2, 0.0, 0.2, 0.4)
"""First look: sizes in those asked for, and how far its middle is from what was told, in sides."""

SIDES, STEP = (0.15, 0.25, 0.4, 0.6), 1 / 3
"""First look where nothing was told: sides of squares of the same area, in canvases, and how far apart places are, in
sides."""

HELD = 0.7
"""Least share of the told points inside of a place."""

ROUNDS = (
    (0.05, (0.85, 1.0, 1.15)),
    (0.025, (0.93, 1.0, 1.07)),
    (0.0125, (0.97, 1.0, 1.03)),
)
"""In each round after that, how far a place is moved (in canvases) and by what its size is multiplied."""


def reduced(image: Image.Image) -> Floats:
    """Bring a picture to what is compared, (SIDE_PX, SIDE_PX, 3)."""
    return np.asarray(image.convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX), np.float64)


def drawn_small(wanted: TrueInstance, place: Floats, drawings: Drawings) -> Drawn | None:
    """Lay a drawing at a place of a `reduced` picture."""
    return drawings.place(wanted, place, (SIDE_PX, SIDE_PX))


class Worth(NamedTuple):
    """What the pixels of a picture are worth to one object.

    Attributes:
        most: (SIDE_PX, SIDE_PX), what each counts where the drawing is exactly like it.
        covered: (SIDE_PX, SIDE_PX), other objects are there, which may hide this one: nothing counts less than 0.
    """

    most: Floats
    covered: Bools


def worth_of(image: Floats, ground: Floats, others: Iterable[Drawn] = ()) -> Worth:
    """Return what the pixels of a `reduced` picture are worth on a ground with other objects on it."""
    most, covered = _distance(image, ground), np.zeros(image.shape[:2], bool)
    for other in others:
        inside = other.inside
        most[inside] = np.minimum(most[inside], _distance(image[inside], other.pixels[inside]))
        covered |= inside
    return Worth(LEAST_WORTH + most, covered)


def explained(image: Floats, drawn: Drawn, free: Bools | None = None, worth: Worth | None = None) -> float:
    """Return what a drawing explains of a `reduced` picture.

    Args:
        image: the picture.
        drawn: the drawing at its place.
        free: (SIDE_PX, SIDE_PX), pixels that count; None counts all.
        worth: None takes `WORTH` everywhere.
    """
    inside = drawn.inside if free is None else drawn.inside & free
    distance = _distance(image[inside], drawn.pixels[inside])
    if worth is None:
        return float((WORTH - distance).sum())
    values = worth.most[inside] - distance
    return float(np.where(worth.covered[inside], np.maximum(values, 0), values).sum())


def _distance(first: Floats, second: Floats) -> Floats:
    return np.minimum(np.linalg.norm(first - second, axis=-1) / (255 * 3**0.5), CLIP)


def told_points(wanted: TrueInstance) -> Floats | None:
    """(P, 2): the points that were told of an object; None if it was told otherwise."""
    if wanted.scribble is not None:
        return wanted.scribble
    return None if wanted.point is None else np.array([wanted.point], np.float64)


def holds(box: Floats, points: Floats | None) -> bool:
    """Tell whether a place has most of the told points inside."""
    return points is None or float(((points >= box[:2]) & (points <= box[2:])).all(1).mean()) >= HELD


def places_around(points: Floats, sides: Floats) -> Iterator[Floats]:
    """Yield places round told points (P, 2) that hold them, of about the sides (2,) that were meant."""
    middle = points.mean(0)
    for factor, dx, dy in product(SIZES, OFFSETS, OFFSETS):
        place = box_of(middle + np.array([dx, dy]) * sides * factor, sides * factor)
        if holds(place, points):
            yield place


def places_anywhere(aspect: float) -> Iterator[Floats]:
    """Yield places all over the canvas, of boxes of an aspect (width by height)."""
    for side in SIDES:
        sides = side * np.array([aspect**0.5, aspect**-0.5])
        if (sides >= 1).any():
            continue
        steps = [max(int(np.ceil((1 - s) / (s * STEP))), 1) + 1 for s in sides]
        for x, y in product(*(np.linspace(s / 2, 1 - s / 2, n) for s, n in zip(sides, steps, strict=True))):
            yield box_of(np.array([x, y]), sides)


def places_near(place: Floats, move: float, factors: tuple[float, ...]) -> Iterator[Floats]:
    """Yield a place and its neighbours of one of the `ROUNDS`."""
    middle, sides = (place[:2] + place[2:]) / 2, place[2:] - place[:2]
    for dx, dy, factor in product((-move, 0.0, move), (-move, 0.0, move), factors):
        yield box_of(middle + np.array([dx, dy]), sides * factor)


def box_of(middle: npt.NDArray[np.float64], sides: npt.NDArray[np.float64]) -> Floats:
    """Return x0 y0 x1 y1 of a middle (2,) and sides (2,)."""
    return np.concatenate([middle - sides / 2, middle + sides / 2])


def best_place(
    image: Floats,
    wanted: TrueInstance,
    places: Iterable[Floats],
    drawings: Drawings,
    free: Bools | None = None,
    worth: Worth | None = None,
) -> tuple[Floats | None, float]:
    """Return the place at which an object explains most of a `reduced` picture, and how much; None if there is none."""
    best: Floats | None = None
    most = -np.inf
    for place in places:
        drawn = drawn_small(wanted, place, drawings)
        if drawn is not None and (value := explained(image, drawn, free, worth)) > most:
            best, most = place, value
    return best, most
