"""The same instance in several words, as people write them: from bare to full, with and without fillers.

Nothing that is said is untrue of the picture, but for the words that people use without a thought ("cute", "sitting",
"a photo of"): they are here so that a model learns to ignore them.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from instancediffusion.scene.english import with_article

from .captions import ANIMAL_PRAISE, LARGE, OPENINGS, POSES, PRAISE, SIDES, SMALL, Named
from .places import places

_T = TypeVar("_T")

_LARGE_FROM, _SMALL_TO = 0.5, 0.3
"""Longer side of a box, fraction of the canvas, from which, or up to which, an object is called large or small."""


def instance_wordings(rng: np.random.Generator, named: Named, box: NDArray[np.float32]) -> tuple[str, str, str]:
    """Write three captions of an instance, from bare to full, in everyday words.

    A colour that is not the class's own is stated in 19 of 20, an orientation in half of those that are not bare.

    Args:
        rng: generator; the same one gives the same captions.
        named: what it is.
        box: (4,), x0 y0 x1 y1 fractions of the canvas, where it is.

    Returns:
        Lower case, no full stop.
    """
    bare = _phrase(rng, named, box, adjective=0.0, colour=0.3) + (f" facing {named.facing}" if named.sided else "")
    some = _phrase(rng, named, box, adjective=0.25, colour=0.65) + _aside(rng, named, box, side=0.55, location=0.15)
    full = _phrase(rng, named, box, adjective=0.5, colour=0.75, style=0.3)
    full = _opened(rng, full) + _pose(rng, named) + _aside(rng, named, box, side=0.6, location=0.5)
    return bare, some, full


def exact_wordings(rng: np.random.Generator, named: Named, box: NDArray[np.float32], count: int = 3) -> tuple[str, ...]:
    """Write captions that specify the sprite in full: its style, its colour, and its orientation.

    A model learns what an instance looks like from these first; from `instance_wordings` it learns to choose.

    Args:
        rng: generator; the same one gives the same captions.
        named: what it is.
        box: (4,), x0 y0 x1 y1 fractions of the canvas, where it is.
        count: how many.

    Returns:
        Lower case, no full stop.
    """
    return tuple(
        _phrase(rng, named, box, adjective=0.0, colour=1.0, style=1.0) + _aside(rng, named, box, side=1.0, location=0.0)
        for _ in range(count)
    )


def _phrase(
    rng: np.random.Generator,
    named: Named,
    box: NDArray[np.float32],
    *,
    adjective: float,
    colour: float,
    style: float = 0.0,
) -> str:
    """Write an article or none, adjectives and a noun."""
    use_adjective, use_colour, use_style, use_name, article = rng.random(5)
    kind, words = named.kind, []
    if use_adjective < adjective:
        words.append(_adjective(rng, named, box))
    if named.colour and use_colour < (colour if named.colour == kind.colour else max(colour, 0.95)):
        words.append(named.colour)
    if style / 2 <= use_style < style:
        words.append(named.look.style)
    words.append(kind.name if use_name < 0.3 else _one(rng, kind.nouns))
    phrase = " ".join(words)
    if use_style < style / 2:
        phrase = f"{named.look.style} drawing of {with_article(phrase)}"
    if article < 0.5:
        return with_article(phrase)
    if article < 0.7:
        return f"the {phrase}"
    return phrase if article < 0.95 or with_article(phrase) == phrase else f"one {phrase}"


def _adjective(rng: np.random.Generator, named: Named, box: NDArray[np.float32]) -> str:
    """Choose an adjective: a trait of the sprite, praise, or its size where that is beyond doubt."""
    longer = float(max(box[2] - box[0], box[3] - box[1]))
    sizes = LARGE if longer >= _LARGE_FROM else SMALL if longer <= _SMALL_TO else ()
    praise = (*PRAISE, *(ANIMAL_PRAISE if named.kind.animal else ()))
    # "Big" and "little" of the catalogue describe the class, not this picture: "a little whale" would confuse.
    traits = tuple(trait for trait in named.look.traits if trait not in (*LARGE, *SMALL))
    groups: list[tuple[str, ...]] = [group for group in (traits, praise, sizes) if group]
    return _one(rng, _one(rng, groups))


def _opened(rng: np.random.Generator, phrase: str) -> str:
    use, which = rng.random(2)
    drawn = " drawing of " in phrase
    return f"{OPENINGS[int(which * len(OPENINGS))]} {phrase}" if use < 0.4 and not drawn else phrase


def _pose(rng: np.random.Generator, named: Named) -> str:
    use, which = rng.random(2)
    still = named.kind.animal and named.kind.stands
    return f" {POSES[int(which * len(POSES))]}" if still and use < 0.25 else ""


def _aside(rng: np.random.Generator, named: Named, box: NDArray[np.float32], *, side: float, location: float) -> str:
    """State its orientation or its location; both would be hard to read."""
    use_side, how, use_location, which = rng.random(4)
    if named.facing and (use_side < side or named.sided):
        return f" {SIDES[int(how * len(SIDES))].format(named.facing)}"
    found = places(box)
    return f" {found[int(which * len(found))]}" if found and use_location < location else ""


def _one(rng: np.random.Generator, options: Sequence[_T]) -> _T:
    return options[int(rng.integers(len(options)))]
