"""Parts as instances of their own: "the head of a dog", where the dog is one of the objects."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from instancediffusion.scene.english import PART_WORDS, part_word, with_article

from .captions import OPENINGS, SIDES, Named
from .painting import Placed

Bools = NDArray[np.bool_]

_SMALLEST = 0.035
"""Smallest longer side of a part, as a fraction of the canvas."""


class Part(NamedTuple):
    """A part that is an instance of its own.

    Attributes:
        of: index of its object.
        name: which part, as the sprite calls it ("left ear").
        box: (4,) x0 y0 x1 y1 fractions of the canvas.
        region: (H, W) bool, the pixels inside of its box.
    """

    of: int
    name: str
    box: NDArray[np.float32]
    region: Bools


def choose_parts(
    rng: np.random.Generator,
    placed: Sequence[Placed],
    boxes: Sequence[NDArray[np.float32]],
    amodal: Sequence[Bools],
    *,
    share: float,
    most: int,
    further: float,
    min_visible: float,
) -> list[Part]:
    """Choose which parts become instances, independently of the depth order.

    Args:
        rng: generator.
        placed: the objects.
        boxes: (4,) each, theirs.
        amodal: (H, W) each, their silhouettes.
        share: fraction of the objects with annotated parts that show one.
        most: parts in the picture at most.
        further: probability that an object shows one more part, if it fits, after each that it shows.
        min_visible: least fraction of a part that no other object covers.

    Returns:
        At most `most`.
    """
    chosen: list[Part] = []
    for index, item in enumerate(placed):
        use, again = rng.random(2)
        order = rng.permutation(len(item.named.look.parts))
        if use >= share:
            continue
        height, width = amodal[index].shape
        parts = list(item.parts(boxes[index], (height, width)).items())
        others = np.any(
            [mask for k, mask in enumerate(amodal) if k != index] or [np.zeros((height, width), bool)], axis=0
        )
        candidates = (parts[k] for k in order)
        fitting = (_part(index, name, box, amodal[index], others, min_visible) for name, box in candidates)
        shown = 1 + sum(again < further**number for number in range(1, most))
        chosen += [part for part in fitting if part is not None][:shown]
    return chosen[:most]


def ranks_with_parts(ranks: Sequence[int], parts: Sequence[Part]) -> list[int]:
    """Return the rank of every object, then of every part: each stands right in front of its object."""
    below = [sum(ranks[part.of] < rank for part in parts) for rank in ranks]
    objects = [rank + more for rank, more in zip(ranks, below, strict=True)]
    earlier = [sum(other.of == part.of for other in parts[:k]) for k, part in enumerate(parts)]
    return objects + [objects[part.of] + 1 + k for part, k in zip(parts, earlier, strict=True)]


def part_captions(rng: np.random.Generator, named: Named, part: str) -> tuple[str, str, str, str]:
    """Write four captions of a part of an object: its plain name first, then from bare to full.

    Args:
        rng: generator; the same one gives the same captions.
        named: the object.
        part: its name in the sprite ("left ear").

    Returns:
        Lower case, no full stop.
    """
    word = part_word(part)
    words = PART_WORDS.get(word, (word,))
    which, form, article, bare, long, colour, opening, aside, how = rng.random(9)
    plain = f"{with_article(named.kind.name)}'s {word}"
    noun = named.kind.nouns[int(rng.integers(len(named.kind.nouns)))]
    if named.colour and colour < (0.4 if named.colour == named.kind.colour else 0.7):
        noun = f"{named.colour} {noun}"
    called = words[int(which * len(words))]
    alone = (called, with_article(called), f"the {called}")[int(bare * 3)]
    owned = f"the {noun}" if article < 0.5 else with_article(noun)
    some = (f"{owned}'s {called}", f"{noun} {called}", f"the {noun} {called}", f"{called} of {owned}")[int(form * 4)]
    side = part if long < 0.5 and part != word else called
    full = f"the {side} of {owned}"
    if opening < 0.25:
        full = f"{OPENINGS[int(how * len(OPENINGS))]} {full}"
    if named.facing and word in ("head", "beak", "mouth") and aside < 0.5:
        full = f"{full} {SIDES[int(how * len(SIDES))].format(named.facing)}"
    return plain, alone, some, full


def _part(
    of: int, name: str, box: NDArray[np.float32], amodal: Bools, others: Bools, min_visible: float
) -> Part | None:
    """Cut a part out of its object; None where it is too small or others cover too much of it."""
    height, width = amodal.shape
    x0, y0, x1, y1 = (float(v) for v in box)
    if max(x1 - x0, y1 - y0) < _SMALLEST:
        return None
    region = np.zeros_like(amodal)
    rows = slice(round(y0 * height), max(round(y1 * height), round(y0 * height) + 1))
    columns = slice(round(x0 * width), max(round(x1 * width), round(x0 * width) + 1))
    region[rows, columns] = amodal[rows, columns]
    whole = int(region.sum())
    free = int((region & ~others).sum())
    return Part(of, name, box, region) if free and free >= min_visible * whole else None
