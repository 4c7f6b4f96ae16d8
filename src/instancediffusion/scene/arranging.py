"""Places for the objects that a prompt names, for a scene that has no instances.

A model that draws objects where it is told them draws nothing of a prompt alone. So its objects are given boxes before,
from the picture's seed: where the prompt says something of their place or order, there; else side by side, those that
stand with their feet in the lower part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np

from .locations import Box
from .mentions import Mention, Noun, mentions
from .model import Instance, Scene

MOST = 12
"""Objects beyond these are left out."""

_SIDES = (0.56, 0.42, 0.36, 0.31, 0.28, 0.25, 0.23)
"""Side of a square of an object's area, in sides of the canvas' square, by the number of objects; .21 for more."""

_LEAST_SIDE, _MARGIN = 0.21, 0.02
_TRIES = 400
_SHRINK, _SIZE = 0.3, 0.2
"""How much smaller the objects of the last try are than those of the first, and what that costs."""

_HIDDEN = 0.25
"""Share of the smaller of two that the nearer one should hide."""

_GROUND = (0.66, 0.97)
"""Where the feet of objects are that stand, from top to bottom."""

_ROWS = {"top": (0.0, 0.45), "bottom": (0.55, 1.0)}
_COLUMNS = {"left": (0.0, 0.45), "right": (0.55, 1.0)}


@dataclass(frozen=True)
class _Object:
    """One of the objects; `relation` to the object `other`."""

    mention: Mention
    noun: Noun
    relation: str | None = None
    other: int | None = None


class Arrangement:
    """Gives places.

    Args:
        nouns: the objects that are known, by word.
        grounds: phrases for what is behind everything; see `mentions`.
    """

    def __init__(self, nouns: Mapping[str, Noun], grounds: Sequence[str] = ()) -> None:
        self._nouns = {word.lower(): noun for word, noun in nouns.items()}
        self._grounds = tuple(grounds)

    def arrange(self, scene: Scene, seed: int) -> Scene:
        """Place what the prompt of a scene names.

        Returns:
            The scene with an instance for each object; the scene itself if it has instances, or names no object.
        """
        if scene.instances:
            return scene
        objects = _objects(mentions(scene.prompt, self._nouns, self._grounds), self._nouns)
        if not objects:
            return scene
        rng = np.random.Generator(np.random.PCG64([seed, crc32(scene.prompt.encode())]))
        boxes = _boxes(objects, scene.width / scene.height, rng)
        layers = _layers(objects)
        instances = tuple(
            Instance(one.mention.caption, box=Box(*(round(float(v), 4) for v in box)), z_order=layer)
            for one, box, layer in zip(objects, boxes, layers, strict=True)
        )
        return replace(scene, instances=instances)


def _objects(found: Sequence[Mention], nouns: Mapping[str, Noun]) -> list[_Object]:
    objects: list[_Object] = []
    for mention in found:
        for _ in range(mention.count):
            objects.append(_Object(mention, nouns[mention.noun]))
        if mention.relation:
            objects[-1] = replace(objects[-1], relation=mention.relation, other=len(objects))
    kept = objects[:MOST]
    return [replace(one, relation=None, other=None) if (one.other or 0) >= len(kept) else one for one in kept]


def _layers(objects: Sequence[_Object]) -> list[int | None]:
    """Say who is nearer, as far as the prompt does; chains of two relations are in one order."""
    layers: list[int | None] = [None] * len(objects)
    for index, one in enumerate(objects):
        if one.other is None or one.relation not in ("front", "behind", "on"):
            continue
        own = layers[index] if layers[index] is not None else 0
        layers[index] = own
        assert own is not None
        layers[one.other] = own + (1 if one.relation == "behind" else -1)
    lowest = min((layer for layer in layers if layer is not None), default=0)
    return [None if layer is None else layer - lowest for layer in layers]


def _boxes(objects: Sequence[_Object], aspect: float, rng: np.random.Generator) -> np.ndarray:
    """Return the best of many random layouts, (N, 4) x0 y0 x1 y1 fractions; `aspect` is the canvas' width by height."""
    best, least = None, np.inf
    for number in range(_TRIES):
        shrink = _SHRINK * number / _TRIES
        boxes = np.stack([_box(one, len(objects), aspect, 1 - shrink, rng) for one in objects])
        for index, one in enumerate(objects):
            if one.other is not None:
                boxes[one.other] = _beside(one, boxes[index], boxes[one.other], rng)
        cost = _cost(objects, boxes) + _SIZE * shrink
        if cost < least:
            best, least = boxes, cost
    assert best is not None
    return best


def _box(one: _Object, count: int, aspect: float, scale: float, rng: np.random.Generator) -> np.ndarray:
    side = (_SIDES[count - 1] if count <= len(_SIDES) else _LEAST_SIDE) * scale * rng.uniform(0.85, 1.1)
    width, height = side * one.noun.aspect**0.5 / aspect**0.5, side * one.noun.aspect**-0.5 * aspect**0.5
    shrink = min(1.0, 0.9 / width, 0.9 / height)
    width, height = width * shrink, height * shrink
    words = (one.mention.place or "").split()
    if "middle" in words:
        x, y = 0.5 + rng.uniform(-0.04, 0.04), 0.5 + rng.uniform(-0.04, 0.04)
    else:
        x = _within(width, next((_COLUMNS[w] for w in words if w in _COLUMNS), (0.0, 1.0)), rng)
        rows = next((_ROWS[w] for w in words if w in _ROWS), None)
        if rows is None and one.noun.stands:
            y = rng.uniform(max(_GROUND[0], height + _MARGIN), max(_GROUND[1], height + _MARGIN)) - height / 2
        else:
            y = _within(height, rows or (0.0, 1.0), rng)
    return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


def _within(length: float, part: tuple[float, float], rng: np.random.Generator) -> float:
    """Draw the middle of an interval in a part of the canvas; what does not fit there is as near as it can be."""
    low, high = max(part[0], length / 2 + _MARGIN), min(part[1], 1 - length / 2 - _MARGIN)
    if low > high:
        return float(np.clip(sum(part) / 2, min(length / 2 + _MARGIN, 0.5), max(1 - length / 2 - _MARGIN, 0.5)))
    return float(rng.uniform(low, high))


def _beside(one: _Object, box: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move the other object of a relation to where it belongs beside the first (4,)."""
    sides, middle = other[2:] - other[:2], (box[:2] + box[2:]) / 2
    both = (box[2:] - box[:2] + sides) / 2
    turn = rng.choice((-1.0, 1.0))
    # Where the other one is, seen from the first: shares of the distance at which they would touch.
    away = {
        "front": (turn * rng.uniform(0.45, 0.7), -rng.uniform(0.1, 0.3)),
        "behind": (turn * rng.uniform(0.45, 0.7), rng.uniform(0.1, 0.3)),
        "left": (rng.uniform(1.05, 1.5), rng.uniform(-0.2, 0.2)),
        "right": (-rng.uniform(1.05, 1.5), rng.uniform(-0.2, 0.2)),
        "above": (rng.uniform(-0.3, 0.3), rng.uniform(1.05, 1.3)),
        "below": (rng.uniform(-0.3, 0.3), -rng.uniform(1.05, 1.3)),
        "beside": (turn * rng.uniform(1.02, 1.2), rng.uniform(-0.1, 0.1)),
        "on": (rng.uniform(-0.2, 0.2), rng.uniform(0.8, 0.9)),
    }[str(one.relation)]
    centre = middle + np.array(away) * both
    return np.concatenate([centre - sides / 2, centre + sides / 2])


def _cost(objects: Sequence[_Object], boxes: np.ndarray) -> float:
    """Say how bad a layout is: what leaves the canvas, overlaps, and hides too much or too little."""
    outside = (
        np.clip(_MARGIN / 2 - boxes[:, :2], 0, None).sum() + np.clip(boxes[:, 2:] - 1 + _MARGIN / 2, 0, None).sum()
    )
    total = 20.0 * float(outside)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    pairs = {(index, one.other): one.relation for index, one in enumerate(objects) if one.other is not None}
    for i in range(len(objects)):
        for j in range(i + 1, len(objects)):
            shared = np.clip(np.minimum(boxes[i, 2:], boxes[j, 2:]) - np.maximum(boxes[i, :2], boxes[j, :2]), 0, None)
            share = float(shared.prod() / min(areas[i], areas[j]))
            hides = pairs.get((i, j)) in ("front", "behind")
            total += abs(share - _HIDDEN) if hides else share
    return total
