"""The objects that a prompt names: how many, what is said of each, and how they stand to one another.

This is no parser of English. It reads the plain sentences that a model of few words was trained with, "two red balloons
and a dog facing left in front of a house on the grass", and leaves out what it cannot read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

NUMBERS = {
    **{"a": 1, "an": 1, "the": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7},
    **{"eight": 8, "some": 3, "several": 3, "many": 4},
}
SEVERAL = 2
"""How many a plural without a number is."""

RELATIONS = {
    "front": ("in front of", "before", "covering", "partly covering", "hiding", "partly hiding"),
    "behind": ("behind", "hidden by", "partly hidden by", "covered by", "partly covered by"),
    "left": ("left of", "to the left of", "on the left of"),
    "right": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
    "beside": ("next to", "beside", "near", "by"),
    "on": ("on", "on top of", "standing on", "sitting on"),
}
"""What the words between two objects say of the first."""

PLACES = {
    **{f"on the {side}": side for side in ("left", "right")},
    **{f"at the {side}": side for side in ("top", "bottom", "left", "right")},
    **{f"in the {rows} {side} corner": f"{rows} {side}" for rows in ("top", "bottom") for side in ("left", "right")},
    **{f"in the {word}": "middle" for word in ("middle", "center", "centre")},
}
"""Where on the picture an object is said to be."""

_TITLES = frozenset({"picture", "drawing", "image", "photo", "painting", "illustration", "scene", "sketch"})
_JOINTS = frozenset(
    {"and", "with", "of", "in", "on", "at", "by", "to", "behind", "under", "over", "above", "below", "near", "beside"}
    | {"facing", "looking", "left", "right", "front", "covering", "hidden", "covered", "is", "are", "stands", "from"}
)
_SIDE = re.compile(r"\s+(?:facing|looking)(?:\s+to)?(?:\s+the)?\s+(left|right)\b")


@dataclass(frozen=True)
class Noun:
    """A word for an object.

    Attributes:
        aspect: width of what it looks like, by its height.
        plural: the word for several.
        stands: it stands on the ground.
    """

    aspect: float = 1.0
    plural: str = ""
    stands: bool = True


@dataclass(frozen=True)
class Mention:
    """Objects that a prompt names together.

    Attributes:
        noun: the word, in the singular.
        phrase: adjectives and the word, in the singular.
        count: how many.
        facing: the side they look to, as far as it is told.
        place: one of the values of `PLACES`, as far as it is told.
        relation: how they stand to the next ones, a key of `RELATIONS`; only between single objects.
    """

    noun: str
    phrase: str
    count: int = 1
    facing: str | None = None
    place: str | None = None
    relation: str | None = None

    @property
    def caption(self) -> str:
        """What is to be seen of one of them."""
        article = "an" if self.phrase[0] in "aeiou" else "a"
        return f"{article} {self.phrase}" + (f" facing {self.facing}" if self.facing else "")


def mentions(prompt: str, nouns: Mapping[str, Noun], grounds: Sequence[str] = ()) -> list[Mention]:
    """List the objects that a prompt names, in its order.

    Args:
        prompt: any text.
        nouns: the words for objects, lower case.
        grounds: phrases that say what is behind everything ("on a table"): objects in them are not meant.
    """
    text = _without(prompt.lower(), grounds)
    forms = {form: word for word, noun in nouns.items() for form in (noun.plural, word) if form}
    if not forms:
        return []
    # Longest first, so that "polar bear" is not taken for a bear.
    pattern = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, sorted(forms, key=len, reverse=True)))})(?![\w-])")
    found: list[Mention] = []
    end = 0
    for match in pattern.finditer(text):
        lead = _lead(text[end : match.start()], forms[match[1]], plural=match[1] != forms[match[1]])
        if lead is None:
            continue
        between, phrase, count = lead
        facing, place, after = _asides(text, match.end())
        if found and found[-1].count == count == 1 and (relation := _relation(between)):
            found[-1] = replace(found[-1], relation=relation)
        found.append(Mention(forms[match[1]], phrase, count, facing, place))
        end = after
    return found


def _without(text: str, phrases: Sequence[str]) -> str:
    for phrase in sorted(phrases, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(phrase.lower())}(?!\w)", ",", text)
    return text


def _lead(before: str, noun: str, *, plural: bool) -> tuple[str, str, int] | None:
    """Read what stands before a noun backwards: adjectives, then a number or article.

    Returns:
        What is left of it, the noun with its adjectives, and the number; None if no object of its own is meant ("the
        head of a horse").
    """
    words = re.findall(r"[\w'-]+|[^\w\s]", before)
    adjectives: list[str] = []
    while words and words[-1] not in NUMBERS and words[-1] not in _JOINTS and re.match(r"\w", words[-1]):
        if words[-1].isdigit():
            break
        adjectives.insert(0, words.pop())
    count = SEVERAL if plural else 1
    if words and words[-1] in NUMBERS:
        number = NUMBERS[words.pop()]
        count = number if plural and number > 1 else count
    elif words and words[-1].isdigit():
        count = max(int(words.pop()), 1) if plural else 1
    between = " ".join(words)
    if words[-1:] == ["of"] and not _TITLES & set(words[-2:-1]) and not _relation(between):
        return None
    return between, " ".join([*adjectives, noun]), count


def _asides(text: str, start: int) -> tuple[str | None, str | None, int]:
    """Read what is said right after a noun: its side and its place; returns where that ends, too."""
    facing = place = None
    if side := _SIDE.match(text, start):
        facing, start = side[1], side.end()
    for words, name in PLACES.items():
        told = re.compile(rf"\s+{words}\b(?!\s+of\b)").match(text, start)
        if told:
            place, start = name, told.end()
    return facing, place, start


def _relation(between: str) -> str | None:
    words = re.sub(r"^(?:is|are|stands|standing)\s+", "", between)
    return next((name for name, options in RELATIONS.items() if words in options), None)
