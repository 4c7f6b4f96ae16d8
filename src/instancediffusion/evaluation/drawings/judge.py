"""A judge that needs no training: it knows every drawing of a world, and looks where it is told to look.

It is told what a picture was to show. Each object is looked for in and round its place with its own drawing; then all
drawings of the world are laid there, in all their colours and sides, and the one that explains most names what is seen.
Pixels are given to objects by `shown`. A place whose pixels show none of the drawings is empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from instancediffusion.worlds import ObjectKind, SpriteBook

from ..seen import Picture, Seen, SeenInstance, as_rgb, resized
from ..truth import TrueInstance, Truth
from .placing import Bools, Drawings, Drawn, Floats
from .search import (
    ROUNDS,
    SIDE_PX,
    Worth,
    best_place,
    drawn_small,
    explained,
    holds,
    places_anywhere,
    places_around,
    places_near,
    reduced,
    told_points,
    worth_of,
)
from .showing import UNDECIDED, ground_beside, grown, shown

LEAST_SHOWN = 0.3
"""Share of an object's free pixels that must show it for it to be there."""

LEAST_GAIN = 0.03
"""What an object must explain of each of its pixels on average, if it stands where others are or was told no place:
otherwise it is one of those, found twice, or nothing."""


class _Placed(NamedTuple):
    """An object where it was found: its own drawing that fits best, its box, and what it explains of the picture."""

    traits: TrueInstance
    place: Floats
    drawn: Drawn
    value: float


class _Found(NamedTuple):
    """What stands at a place."""

    placed: _Placed
    looks: TrueInstance
    drawn: Drawn
    free: Bools


class DrawingsJudge:
    """Says which of the objects asked for a picture shows, where, in which colour and facing which side.

    Args:
        sprites: the drawings.
        kinds: the kinds that may be seen.

    Attributes:
        drawings: lays them.
    """

    def __init__(self, sprites: SpriteBook, kinds: Sequence[ObjectKind]) -> None:
        self.drawings = Drawings(sprites)
        self._variants = {kind.name: _variants(kind) for kind in kinds}
        self._all = [one for variants in self._variants.values() for one in variants]

    def describe(self) -> Mapping[str, Any]:
        """Return JSON-like facts."""
        return {"name": "drawings", "kinds": len(self._variants), "drawings": len(self._all)}

    def look_for(self, images: Sequence[Picture], truths: Sequence[Truth]) -> list[Seen]:
        """Look for what each picture (PIL, or (H, W, 3) uint8) was to show; `extra` objects are never seen."""
        return [self._look(image, truth) for image, truth in zip(images, truths, strict=True)]

    def locate(self, image: Picture, truth: Truth) -> tuple[list[Drawn | None], list[Floats | None], Floats]:
        """Say where each object is in a picture, brought to `reduced`.

        Returns:
            The drawing of each, laid where it was found; its box x0 y0 x1 y1, fractions; None for both where no place
            could be told. And the ground, (SIDE_PX, SIDE_PX, 3).
        """
        placed, ground = self._placed(reduced(as_rgb(image)), truth)
        return [one and one.drawn for one in placed], [None if one is None else one.place for one in placed], ground

    def _look(self, picture: Picture, truth: Truth) -> Seen:
        image = as_rgb(picture)
        small = reduced(image)
        placed, ground = self._placed(small, truth)
        found = []
        for index, (one, free) in enumerate(zip(placed, _free(truth), strict=True)):
            if one is not None:
                others = [other.drawn for k, other in enumerate(placed) if other is not None and k != index]
                worth = worth_of(small, ground, others)
                found.append(self._name(small, one, free, worth, (image.height, image.width)))
        return _seen(image, found)

    def _placed(self, small: Floats, truth: Truth) -> tuple[list[_Placed | None], Floats]:
        """Find each object by its own drawings; returns the ground, too."""
        free, ground = _free(truth), _first_ground(small, truth)
        alone = [
            self._place(small, wanted, mine, worth_of(small, ground))
            for wanted, mine in zip(truth.instances, free, strict=True)
        ]
        if all(_boxed(wanted) for wanted in truth.instances):
            return alone, ground
        # What was found says where the ground is. Then one after the other, what explains most first, each is laid over
        # what those before it do not explain.
        silhouettes = [one.drawn.inside for one in alone if one is not None]
        better = ground_beside(small, grown(np.any(silhouettes, axis=0))) if silhouettes else None
        ground = ground if better is None else better
        placed: list[_Placed | None] = [None] * len(alone)
        strength = [-np.inf if one is None else one.value for one in alone]
        for index in np.argsort(strength)[::-1]:
            worth = worth_of(small, ground, [one.drawn for one in placed if one is not None])
            placed[index] = self._place(small, truth.instances[index], free[index], worth)
        return placed, ground

    def _place(self, small: Floats, wanted: TrueInstance, free: Bools, worth: Worth) -> _Placed | None:
        own = self._variants.get(wanted.name or "")
        if own is None and wanted.box is None:
            return None
        traits, place, value = own[0] if own else self._all[0], None, -np.inf
        for one in own or self._all:
            start, gain = best_place(small, one, self._starts(wanted, one), self.drawings, free, worth)
            if start is not None and gain > value:
                traits, place, value = one, start, gain
        if place is None:
            return None
        points = told_points(wanted)
        for move, factors in ROUNDS:
            near = (tried for tried in places_near(place, move, factors) if holds(tried, points))
            better, gain = best_place(small, traits, near, self.drawings, free, worth)
            place, value = (place, value) if better is None else (better, gain)
        drawn = drawn_small(traits, place, self.drawings)
        assert drawn is not None
        inside = drawn.inside & free
        elsewhere = wanted.told and 2 * worth.covered[inside].sum() <= inside.sum()
        if not elsewhere and value < LEAST_GAIN * inside.sum():
            return None
        return _Placed(traits, place, drawn, value)

    def _name(self, small: Floats, one: _Placed, free: Bools, worth: Worth, size: tuple[int, int]) -> _Found:
        """Say what stands at a place: the drawing that explains most there."""

        def value(looks: TrueInstance) -> float:
            drawn = drawn_small(looks, one.place, self.drawings)
            return -np.inf if drawn is None else explained(small, drawn, free, worth)

        looks = max(self._all, key=value)
        drawn = self.drawings.place(looks, one.place, size)
        assert drawn is not None
        return _Found(one, looks, drawn, _at(free, size))

    def _starts(self, wanted: TrueInstance, one: TrueInstance) -> Iterable[Floats]:
        if wanted.box is not None and _boxed(wanted):
            return (wanted.box,)
        points = told_points(wanted)
        if points is not None and wanted.box is not None:
            return places_around(points, wanted.box[2:] - wanted.box[:2])
        return places_anywhere(self.drawings.aspect(one))


def _variants(kind: ObjectKind) -> list[TrueInstance]:
    """Return every drawing of a kind."""
    return [
        TrueInstance(kind.name, colour, side) for colour in kind.colours or (None,) for side in kind.facings or (None,)
    ]


def _boxed(wanted: TrueInstance) -> bool:
    return bool({"box", "mask"} & set(wanted.told))


def _free(truth: Truth) -> list[Bools]:
    """Say for each object where none whose place was told hides it, (SIDE_PX, SIDE_PX)."""
    known = [one.visible if _boxed(one) else None for one in truth.instances]
    small = [np.zeros((SIDE_PX, SIDE_PX), bool) if one is None else _at(one, (SIDE_PX, SIDE_PX)) for one in known]
    everywhere = np.sum(small, axis=0, dtype=int)
    return [everywhere - one == 0 for one in small]


def _first_ground(small: Floats, truth: Truth) -> Floats:
    """Guess the ground: beside the told boxes, or else the median of each row, which grounds of the world keep."""
    boxes = [wanted.box for wanted in truth.instances if _boxed(wanted) and wanted.box is not None]
    if boxes and len(boxes) == len(truth.instances):
        covered = np.zeros((SIDE_PX, SIDE_PX), bool)
        for x0, y0, x1, y1 in np.clip(boxes, 0, 1) * SIDE_PX:
            covered[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
        if (ground := ground_beside(small, grown(covered))) is not None:
            return ground
    return np.broadcast_to(np.median(small, axis=1, keepdims=True), small.shape)


def _at(mask: Bools, size: tuple[int, int]) -> Bools:
    return resized(mask.astype(np.uint8), size) > 0


def _seen(image: Image.Image, found: Sequence[_Found]) -> Seen:
    """Give pixels to what was found, and drop what has none."""
    owners = shown(image, [one.drawn for one in found])
    labels = np.zeros(owners.shape, np.uint8)
    instances: list[SeenInstance] = []
    for index, one in enumerate(found):
        own = one.drawn.inside & one.free
        told = own & (owners != UNDECIDED)
        share = float((owners[told] == index).mean()) if told.any() else float(own.any())
        if share < LEAST_SHOWN:
            continue
        # What looks alike, whoever it is, is taken as it should be.
        labels[(owners == index) | (own & (owners == UNDECIDED))] = len(instances) + 1
        traits = one.placed.traits
        instances.append(SeenInstance(str(one.looks.name), traits.colour, traits.facing, one.placed.place, share))
    return Seen(labels, tuple(instances))
