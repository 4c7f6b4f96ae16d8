"""Texts about objects of the world, labelled with what each says: what a text model learns from after its teacher.

An instance's caption speaks of one object; what it says is read at its end. A prompt speaks of several; what it says of
each is read where the phrase about it ends, and what it names in all at the prompt's end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from instancediffusion.data.drawn_world import Background, ObjectClass
from instancediffusion.scene.english import PART_WORDS, part_word, plural, with_article
from instancediffusion.training.language.filler import ADJECTIVES, BESIDE, SURROUNDINGS, TAILS, dressed, gibberish

UNSTATED = 0
"""A value that the text leaves open."""

SIDES = ("left", "right")
NUMBERS = ("one", "two", "three", "four", "many")
_MANY = 1 + NUMBERS.index("many")
_COUNTED = ("two", "three", "four")
_UNCOUNTED = ("several", "some", "many", "a few", "lots of")
_FACING = (
    *("facing {}", "looking to the {}", "facing to the {}", "looking {}", "turned to the {}", "heading {}"),
    *("pointing to the {}", "facing the {}", "that looks to the {}", "facing towards the {}"),
)
_RELATIONS = ("in front of", "covering", "partly covering", "behind", "partly hidden by", "next to", "near", "beside")
_TITLES = ("a picture of", "a drawing of", "an image of", "a scene with", "a photo of", "there is")
# Other words for the colours' names, each nearer to its own than to any other.
COLOUR_WORDS: Mapping[str, tuple[str, ...]] = {
    "red": ("crimson", "scarlet", "ruby", "bright red", "dark red", "cherry red", "reddish"),
    "orange": ("bright orange", "dark orange", "amber", "tangerine-coloured"),
    "yellow": ("golden yellow", "bright yellow", "lemon yellow", "yellowish"),
    "green": ("emerald", "lime green", "dark green", "light green", "olive", "greenish", "grassy green"),
    "blue": ("navy", "azure", "sky blue", "dark blue", "light blue", "turquoise", "cobalt", "bluish"),
    "purple": ("violet", "lavender", "lilac", "magenta", "plum-coloured", "dark purple"),
    "pink": ("rosy", "light pink", "hot pink", "pinkish"),
    "brown": ("chestnut", "tan", "chocolate brown", "brownish", "dark brown", "light brown"),
    "white": ("snow-white", "snowy white", "ivory", "whitish", "pure white"),
    "black": ("jet black", "pitch black", "ebony", "coal-black"),
    "gray": ("grey", "silver gray", "dark gray", "light grey"),
}


@dataclass(frozen=True)
class PhraseLabels:
    """Labels of what a phrase says: numbers into the tables of `Grammar`, 0 where it leaves something open.

    Attributes:
        kind: 1 + number of the class; past them all: none of them.
        colour, side, part, style: 1 + number.
        number: 1 + number in `NUMBERS`.
    """

    kind: int = UNSTATED
    colour: int = UNSTATED
    side: int = UNSTATED
    number: int = UNSTATED
    part: int = UNSTATED
    style: int = UNSTATED


@dataclass(frozen=True)
class Reading:
    """A text and what it says.

    Attributes:
        text: the text.
        ends: position past the last character of each phrase; of a caption, its length.
        told: the labels of each phrase.
        ground: 1 + number of the background; prompts only.
    """

    text: str
    ends: tuple[int, ...]
    told: tuple[PhraseLabels, ...]
    ground: int = UNSTATED


@dataclass(frozen=True)
class Thing:
    """A class and how texts may speak of it.

    Attributes:
        words: its names, the one that counts first.
        narrower: its hyponyms.
        traits: adjectives that may stand before it, no colours.
        colours: those it is drawn in, if its colour can be chosen.
        parts: parts of it that may be spoken of.
    """

    words: tuple[str, ...]
    narrower: tuple[str, ...] = ()
    traits: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grammar:
    """The world's classes and backgrounds, and their words.

    Attributes:
        things: the classes.
        colours: names of colours.
        styles: words for how something is drawn.
        parts: what a part may be called, the plain word first.
        grounds: by background, how a prompt says it.
    """

    things: tuple[Thing, ...]
    colours: tuple[str, ...]
    styles: tuple[str, ...]
    parts: tuple[tuple[str, ...], ...]
    grounds: tuple[tuple[str, ...], ...]

    @classmethod
    def of(
        cls, kinds: Sequence[ObjectClass], narrower: Mapping[str, Sequence[str]], backgrounds: Sequence[Background]
    ) -> Grammar:
        """Make the grammar of a world's classes and backgrounds.

        Args:
            kinds: the classes.
            narrower: hyponyms by the name of the class.
            backgrounds: what may be behind the objects.
        """
        things = tuple(
            Thing(
                kind.nouns,
                tuple(narrower.get(kind.name, ())),
                # "A green turtle" says a colour: traits that are colours would teach that it says none.
                tuple(trait for trait in kind.traits if trait not in COLOUR_WORDS),
                kind.colours,
                tuple(sorted({part_word(part) for drawing in kind.drawings for part in drawing.parts})),
            )
            for kind in kinds
        )
        named = sorted({part for thing in things for part in thing.parts})
        return cls(
            things,
            tuple(COLOUR_WORDS),
            tuple(sorted({drawing.style for kind in kinds for drawing in kind.drawings})),
            tuple(tuple(dict.fromkeys(PART_WORDS.get(part, (part,)))) for part in named),
            tuple(ground.phrases for ground in backgrounds),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Grammar:
        """Take back what `dataclasses.asdict` made, lists instead of tuples or not."""
        fields = {name: _tuples(value) for name, value in values.items()}
        things = tuple(Thing(**{name: _tuples(value) for name, value in each.items()}) for each in values["things"])
        return cls(**{**fields, "things": things})

    def words(self) -> list[str]:
        """Every text fragment that its texts are made of."""
        of_things = (each for thing in self.things for each in (*thing.words, *map(plural, thing.words), *thing.traits))
        of_others = (phrase for group in (*self.parts, *self.grounds, *COLOUR_WORDS.values()) for phrase in group)
        more = (*self.colours, *self.styles, *_FACING, *_RELATIONS, *_TITLES)
        return [*of_things, *of_others, *(phrase.replace("{}", "").strip() for phrase in more)]

    def caption_pair(self, rng: np.random.Generator) -> tuple[Reading, Reading]:
        """Write two captions that say the same."""
        if rng.random() < 0.04:
            nothing = PhraseLabels(kind=len(self.things) + 1)
            return _whole(gibberish(rng), nothing), _whole(gibberish(rng), nothing)
        said = self._draw(rng)
        texts = [self._caption(rng, said) for _ in range(2)]
        if rng.random() < 0.3:
            texts[0] = self.in_company(rng, texts[0])
        return _whole(texts[0], said), _whole(texts[1], said)

    def in_company(self, rng: np.random.Generator, caption: str) -> str:
        """Say of a caption's object where it is or what is beside it: "a corgi in front of a cupcake" is a corgi.

        Args:
            rng: generator.
            caption: the whole caption, with or without full stop.

        Returns:
            The caption followed by one or two other things; what it says of its own object is unchanged.
        """
        text = caption.rstrip(".")
        for _ in range(1 + int(rng.random() < 0.2)):
            if rng.random() < 0.5:
                beside = with_article(_one(rng, SURROUNDINGS))
            else:
                beside = self._phrase(rng, replace(self._draw(rng, sides=0.0), part=UNSTATED), fillers=0.1)
            text += f" {_one(rng, BESIDE)} {beside}"
        return text

    def prompt(self, rng: np.random.Generator) -> Reading:
        """Write a prompt about one to five objects."""
        count = int(rng.integers(1, 6))
        labels, ends, text = [], [], ""
        if rng.random() < 0.2:
            text = _one(rng, _TITLES) + " "
        for i in range(count):
            if i:
                relation = i == 1 and rng.random() < 0.3
                text += f" {_one(rng, _RELATIONS)} " if relation else (" and " if i == count - 1 else ", ")
            said = replace(self._draw(rng, sides=0.1, numbers=0.08), part=UNSTATED)
            text += self._phrase(rng, said, fillers=0.08)
            if not said.side and rng.random() < 0.15:
                text += f" {_one(rng, TAILS)}"
            ends.append(len(text))
            labels.append(said)
        ground = UNSTATED
        if rng.random() < 0.75:
            ground = 1 + int(rng.integers(len(self.grounds)))
            text += f" {_one(rng, self.grounds[ground - 1])}"
        return Reading(text, tuple(ends), tuple(labels), ground)

    def _draw(self, rng: np.random.Generator, sides: float = 0.4, numbers: float = 0.05) -> PhraseLabels:
        number = int(rng.integers(len(self.things)))
        thing = self.things[number]
        colour, side, count, part, style = rng.random(5)
        said = PhraseLabels(kind=1 + number)
        if thing.parts and part < 0.12:
            plain = _one(rng, thing.parts)
            said = replace(said, part=1 + next(i for i, called in enumerate(self.parts) if plain in called[:1]))
            return replace(said, side=1 + int(rng.integers(2))) if side < 0.1 else said
        if colour < (0.6 if thing.colours else 0.15):
            # A colour is understood whatever it is put on.
            options = thing.colours if thing.colours and colour < 0.5 else self.colours
            said = replace(said, colour=1 + self.colours.index(_one(rng, options)))
        if self.styles and style < 0.1:
            said = replace(said, style=1 + int(rng.integers(len(self.styles))))
        if side < sides:
            return replace(said, side=1 + int(rng.integers(2)))
        return replace(said, number=1 + int(rng.integers(1, len(NUMBERS)))) if count < numbers else said

    def _caption(self, rng: np.random.Generator, said: PhraseLabels) -> str:
        if said.part:
            text = self._part(rng, said)
        elif said.side:
            text = dressed(rng, self._noun(rng, said), tail=False).rstrip(".")
        elif said.number == _MANY and rng.random() < 0.4:
            return plural(self._noun(rng, said))
        else:
            return dressed(rng, self._noun(rng, said), number=self._number(rng, said))
        if not said.side:
            return text
        facing = _one(rng, _FACING).format(SIDES[said.side - 1])
        tail = f" {_one(rng, TAILS)}" if rng.random() < 0.1 else ""
        return f"{text}{tail} {facing}" if rng.random() < 0.5 else f"{text} {facing}{tail}"

    def _phrase(self, rng: np.random.Generator, said: PhraseLabels, fillers: float) -> str:
        noun = self._noun(rng, said)
        if rng.random() < fillers:
            noun = f"{_one(rng, ADJECTIVES)} {noun}"
        number = self._number(rng, said)
        if number:
            return f"{number} {plural(noun)}"
        text = with_article(noun) if rng.random() < 0.9 else noun
        return f"{text} {_one(rng, _FACING[:3]).format(SIDES[said.side - 1])}" if said.side else text

    def _noun(self, rng: np.random.Generator, said: PhraseLabels) -> str:
        thing = self.things[said.kind - 1]
        share = rng.random()
        if share < 0.4 or (share >= 0.75 and not thing.narrower):
            noun = thing.words[0]
        else:
            noun = _one(rng, thing.words if share < 0.75 else thing.narrower)
        if said.colour:
            name = self.colours[said.colour - 1]
            noun = f"{name if rng.random() < 0.75 else _one(rng, COLOUR_WORDS[name])} {noun}"
        if thing.traits and rng.random() < 0.15:
            noun = f"{_one(rng, thing.traits)} {noun}"
        if said.style:
            style, before = self.styles[said.style - 1], rng.random() < 0.7 or said.number
            noun = f"{style} {noun}" if before else f"{style} drawing of {with_article(noun)}"
        return noun

    def _part(self, rng: np.random.Generator, said: PhraseLabels) -> str:
        noun, part = self._noun(rng, said), _one(rng, self.parts[said.part - 1])
        how = rng.random()
        if how < 0.45:
            return f"{with_article(noun) if rng.random() < 0.6 else 'the ' + noun}'s {part}"
        if how < 0.85:
            article = _one(rng, ("the {}", "{}")).format(part)
            return f"{article} of {with_article(noun) if rng.random() < 0.6 else 'the ' + noun}"
        return f"{noun} {part}" if rng.random() < 0.5 else f"the {noun} {part}"

    def _number(self, rng: np.random.Generator, said: PhraseLabels) -> str:
        if said.number < 2:
            return ""
        name = NUMBERS[said.number - 1]
        return name if name in _COUNTED else _one(rng, _UNCOUNTED)


def _whole(text: str, labels: PhraseLabels) -> Reading:
    return Reading(text, (len(text),), (labels,))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _one(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]
