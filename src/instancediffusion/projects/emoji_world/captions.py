"""Captions that are true of their picture: one for each instance, one for the whole.

Instance captions run from bare ("a pear") to full ("a ripe yellow pear facing left"). Prompts name the objects in any
order, with counts, colours, locations in the picture, the background, and "in front of" or "behind" where two objects
really overlap.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instancediffusion.scene.english import (
    NUMBERS,
    PART_WORDS,
    counted,
    listed,
    part_word,
    plural,
    with_article,
)

from .art_sets import STYLES
from .backgrounds import Background
from .kinds import Drawing, Facing, ObjectKind
from .places import PLACES, places

EVERYDAY_TITLES = ("a photo of", "a view of", "an illustration of", "a scene of", "there is")
"""How everyday prompts begin."""

OPENINGS = (
    *("a photo of", "a picture of", "an image of", "a full view of", "a view of", "a drawing of", "an illustration of"),
    *("there is", "a close up of", "a portrait of"),
)
PRAISE = ("lovely", "nice", "beautiful", "pretty", "wonderful", "simple")
ANIMAL_PRAISE = ("cute", "adorable", "friendly", "happy", "sweet", "playful", "young")
POSES = ("sitting", "standing", "standing there", "standing still", "sitting down", "posing", "resting")
LARGE, SMALL = ("big", "large", "huge"), ("small", "little", "tiny")
SIDES = ("facing {}", "looking {}", "looking to the {}", "facing to the {}", "turned to the {}", "facing the {}")

_TITLES = ("a picture of", "a drawing of", "an image of", "a scene with")
_RELATIONS = {
    True: ("in front of", "covering", "partly covering"),
    False: ("behind", "partly hidden by", "partly covered by"),
}


@dataclass(frozen=True)
class Named:
    """What a caption may state of an instance; without `drawing` it is the first sprite of the class.

    With `sided` every caption of it states its orientation.
    """

    kind: ObjectKind
    colour: str | None
    facing: Facing | None
    drawing: Drawing | None = None
    sided: bool = False

    @property
    def look(self) -> Drawing:
        """The sprite."""
        return self.drawing or self.kind.drawings[0]


def instance_caption(rng: np.random.Generator, named: Named) -> str:
    """Write one instance's caption, with its article."""
    return with_article(_noun_phrase(rng, named, trait=0.25, colour=0.75)) + _side(rng, named, 0.45)


def prompt_caption(
    rng: np.random.Generator,
    objects: Sequence[Named],
    z_order: Sequence[int],
    overlapping: Sequence[tuple[int, int]],
    background: Background,
    boxes: Sequence[NDArray[np.float32]] = (),
    *,
    everyday: bool = False,
) -> str:
    """Write the caption of the whole picture.

    Args:
        rng: generator. The same generator with another depth order gives the same sentence but for what is in front.
        objects: what there is.
        z_order: rank of each; larger is nearer.
        overlapping: pairs of indices whose silhouettes overlap.
        background: what is behind.
        boxes: (4,) each, of the objects; without them no location is stated.
        everyday: use everyday words for the objects and for the picture, too.

    Returns:
        Lower case, no full stop.
    """
    phrases = [_noun_phrase(rng, named, trait=0.1, colour=0.7, everyday=everyday) for named in objects]
    sides = [_side(rng, named, 0.12) for named in objects]
    where = [_location(rng, box, 0.25) for box in boxes] or [""] * len(objects)
    # One thing about each at most: "a cat facing left on the right" would be hard to read.
    asides = [side or location for side, location in zip(sides, where, strict=True)]
    style, tell, keep_ground, ground_first, skip = rng.random(5)
    ground = background.phrases[int(rng.integers(len(background.phrases)))]
    titles = (*_TITLES, *EVERYDAY_TITLES) if everyday else _TITLES
    title = titles[int(rng.integers(len(titles)))]
    word, pick, flip = rng.random(3)
    order = [int(i) for i in rng.permutation(len(objects))]

    names = [named.kind.name for named in objects]
    pairs = [pair for pair in overlapping if names.count(names[pair[0]]) == names.count(names[pair[1]]) == 1]
    relation = ""
    if pairs and tell < 0.5:
        first, second = pairs[int(pick * len(pairs))]
        if flip < 0.5:
            first, second = second, first
        options = _RELATIONS[z_order[first] > z_order[second]]
        between = options[int(word * len(options))]
        relation = f"{with_article(phrases[first])} {between} {with_article(phrases[second])}"
        order = [i for i in order if i not in (first, second)]
    elif len(objects) > 1 and skip < 0.08:
        order = order[:-1]
    others = _grouped([phrases[i] for i in order], [asides[i] for i in order])
    # "a dog behind a cat and a car" would say too much, so the others follow after "with".
    sentence = ", with ".join(part for part in (relation, listed(others)) if part)
    if keep_ground < 0.8:
        sentence = f"{ground}, {sentence}" if ground_first < 0.1 else f"{sentence} {ground}"
    return f"{title} {sentence}" if style < 0.15 else sentence


def vocabulary(kinds: Iterable[ObjectKind], backgrounds: Iterable[Background]) -> tuple[str, ...]:
    """List every word that captions and prompts of these classes and backgrounds can contain, sorted."""
    phrases = ["a an one the and with facing left right looking to drawing of", *NUMBERS[2:], "many", *PLACES, *STYLES]
    phrases += [phrase for options in _RELATIONS.values() for phrase in options]
    phrases += [*_TITLES, *EVERYDAY_TITLES, *OPENINGS, *PRAISE, *ANIMAL_PRAISE, *POSES, *LARGE, *SMALL]
    phrases += [form.format("") for form in SIDES]
    for kind in kinds:
        phrases += [*kind.nouns, *map(plural, kind.nouns)]
        phrases += [word for drawing in kind.drawings for word in (*drawing.traits, *drawing.colours, *drawing.parts)]
        parts = {part_word(part) for drawing in kind.drawings for part in drawing.parts}
        phrases += [word for part in parts for word in PART_WORDS.get(part, ())]
        phrases += [drawing.colour for drawing in kind.drawings if drawing.colour]
    for background in backgrounds:
        phrases += background.phrases
    return tuple(sorted({word for phrase in phrases for word in phrase.replace(",", " ").split()}))


def _noun_phrase(rng: np.random.Generator, named: Named, *, trait: float, colour: float, everyday: bool = False) -> str:
    """Write adjectives and a noun, without article. A colour that is not the class's own is stated more often."""
    kind, traits = named.kind, named.look.traits
    use_trait, use_colour, use_synonym, which = rng.random(4)
    words = []
    if traits and use_trait < trait:
        words.append(traits[int(which * len(traits))])
    if named.colour and use_colour < (colour if named.colour == kind.colour else 0.5 + 0.5 * colour):
        words.append(named.colour)
    synonyms, probability = (kind.nouns[1:], 0.6) if everyday else (kind.synonyms, 0.25)
    words.append(synonyms[int(which * len(synonyms))] if synonyms and use_synonym < probability else kind.name)
    return " ".join(words)


def _side(rng: np.random.Generator, named: Named, probability: float) -> str:
    use, how = rng.random(2)
    if named.facing is None or (use >= probability and not named.sided):
        return ""
    return f" facing {named.facing}" if how < 0.7 else f" looking to the {named.facing}"


def _location(rng: np.random.Generator, box: NDArray[np.float32], probability: float) -> str:
    use, which = rng.random(2)
    found = places(box)
    return f" {found[int(which * len(found))]}" if found and use < probability else ""


def _grouped(phrases: Sequence[str], asides: Sequence[str]) -> list[str]:
    """Count equal phrases together ("two red balloons"); a single one may state its orientation or location."""
    return [
        counted(phrase, phrases.count(phrase)) + (asides[i] if phrases.count(phrase) == 1 else "")
        for i, phrase in enumerate(phrases)
        if phrase not in phrases[:i]
    ]
