"""What captions leave open: the side and colour of an object that a picture has to choose.

A model of few pictures gives what is not told as a mean: a horse that looks both ways at once, a pear of three colours.
So what a caption leaves open is chosen before, from the picture's seed, in the words the model was trained with. The
choice depends on the seed and the caption only, not on the place: an object that is moved stays the same. What the
prompt says of the one object of a kind is not open.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from zlib import crc32

import numpy as np

from .mentions import Mention, Noun, mentions
from .model import Scene

_OWN_COLOUR = 0.5
_JOINTS = frozenset({"a", "an", "the", "of"})


class CaptionCompletion:
    """Completes captions of the form "a (adjectives) noun (facing a side)"; all others stay as they are.

    Args:
        choices: noun -> `{"colours": [...], "facings": [...]}`: what it can be, its usual colour first. Either list may
            be left out or empty; nouns that leave nothing open keep shorter ones in them from being found.
    """

    def __init__(self, choices: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        self._choices = {
            noun.lower(): (choice.get("colours") or (), choice.get("facings") or ()) for noun, choice in choices.items()
        }
        self._colours = {colour for colours, _ in self._choices.values() for colour in colours}
        self._nouns = {noun: Noun() for noun in self._choices}
        # Longest first, so that "polar bear" is not taken for a bear.
        nouns = "|".join(re.escape(noun) for noun in sorted(self._choices, key=len, reverse=True))
        form = rf"^((?:an?|the)\s+)?((?:[\w-]+\s+)*?)({nouns})(\s+(?:facing|looking)\s.*)?$"
        self._pattern = re.compile(form) if nouns else None

    def complete(self, caption: str, seed: int, occurrence: int = 0, said: Mention | None = None) -> str:
        """A caption that says all.

        Args:
            caption: of one instance.
            seed: of the picture.
            occurrence: how many instances of the picture have the same caption before this one.
            said: what the prompt says of it.

        Returns:
            The caption itself where it says all, or is of another form.
        """
        luck = np.random.Generator(np.random.PCG64([seed, crc32(caption.encode()), occurrence])).random(3)

        def drawn(colours: Sequence[str], facings: Sequence[str]) -> tuple[str, str]:
            colour = colours[0 if luck[0] < _OWN_COLOUR else int(luck[1] * len(colours))] if colours else ""
            facing = facings[int(luck[2] * len(facings))] if facings else ""
            if said is not None:
                colour = next((word for word in said.phrase.split() if word in colours), colour)
                facing = said.facing if said.facing and said.facing in facings else facing
            return colour, facing

        return self._told(caption, drawn)

    def tell(self, caption: str, colour: str | None, facing: str | None) -> str:
        """A caption that says all, for an object whose colour and side are known; see `complete`."""

        def known(colours: Sequence[str], facings: Sequence[str]) -> tuple[str, str]:
            return (colour or "") if colour in colours else "", (facing or "") if facing in facings else ""

        return self._told(caption, known)

    def _told(self, caption: str, chosen: Callable[[Sequence[str], Sequence[str]], tuple[str, str]]) -> str:
        """Fill in what the caption leaves open, out of the colour and side that are chosen for its noun."""
        found = self._pattern.match(caption.strip().lower()) if self._pattern else None
        if found is None:
            return caption
        article, adjectives, noun, side = (part or "" for part in found.groups())
        words = set(adjectives.split())
        # "the head of a horse" is no horse, and "a cat on a horse" is not one object.
        if words & _JOINTS or words & self._choices.keys():
            return caption
        colour, facing = chosen(*self._choices[noun])
        added = colour if colour and not words & self._colours else ""
        turned = f" facing {facing}" if facing and not side else ""
        if not added and not turned:
            return caption
        if added and not adjectives and article.strip() in ("a", "an"):
            article = "an " if added[0] in "aeiou" else "a "
        return f"{article}{adjectives}{added}{' ' * bool(added)}{noun}{side}{turned}"

    def _noun(self, caption: str) -> str | None:
        found = self._pattern.match(caption.strip().lower()) if self._pattern else None
        return found[3] if found else None

    def complete_scene(self, scene: Scene, seed: int) -> Scene:
        """The scene with completed captions; the prompt stays."""
        before: Counter[str] = Counter()
        instances = []
        nouns = [self._noun(instance.caption) for instance in scene.instances]
        named = mentions(scene.prompt, self._nouns)
        said = {one.noun: one for one in named if [other.noun for other in named].count(one.noun) == 1}
        for instance, noun in zip(scene.instances, nouns, strict=True):
            # Of several objects of a kind nobody knows which one the prompt means.
            only = said.get(noun) if noun is not None and nouns.count(noun) == 1 else None
            told = self.complete(instance.caption, seed, before[instance.caption], only)
            before[instance.caption] += 1
            instances.append(instance if told == instance.caption else replace(instance, caption=told))
        return replace(scene, instances=tuple(instances))
