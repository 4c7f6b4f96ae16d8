"""What captions leave open: the side and colour of an object that a picture has to choose.

A model of few pictures gives what is not told as a mean: a horse that looks both ways at once, a pear of three colours.
So what a caption leaves open is chosen before, from the picture's seed, in the words the model was trained with. The
choice depends on the seed and the caption only, not on the place: an object that is moved stays the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from zlib import crc32

import numpy as np

from instancediffusion.pipeline.requests import ImageRequest
from instancediffusion.scene import Scene

_OWN_COLOUR = 0.5
_JOINTS = frozenset({"a", "an", "the", "of"})


class CaptionCompletion:
    """Completes captions of the form "a (adjectives) noun (facing a side)"; all others stay as they are.

    Args:
        choices: noun -> `{"colours": [...], "facings": [...]}`: what it can be, its usual colour first. Either list may
            be left out or empty.
    """

    def __init__(self, choices: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        self._choices = {noun.lower(): choice for noun, choice in choices.items()}
        self._colours = {colour for choice in choices.values() for colour in choice.get("colours") or ()}
        # Longest first, so that "polar bear" is not taken for a bear.
        nouns = "|".join(re.escape(noun) for noun in sorted(self._choices, key=len, reverse=True))
        form = rf"^((?:an?|the)\s+)?((?:[\w-]+\s+)*?)({nouns})(\s+(?:facing|looking)\s.*)?$"
        self._pattern = re.compile(form) if nouns else None

    def complete(self, caption: str, seed: int, occurrence: int = 0) -> str:
        """A caption that says all.

        Args:
            caption: of one instance.
            seed: of the picture.
            occurrence: how many instances of the picture have the same caption before this one.

        Returns:
            The caption itself where it says all, or is of another form.
        """
        found = self._pattern.match(caption.strip().lower()) if self._pattern else None
        if found is None:
            return caption
        article, adjectives, noun, side = (part or "" for part in found.groups())
        choice = self._choices[noun]
        # "the head of a horse" is no horse, and "a cat on a horse" is not one object.
        if _JOINTS.intersection(adjectives.split()) or self._choices.keys() & set(adjectives.split()):
            return caption
        luck = np.random.Generator(np.random.PCG64([seed, crc32(caption.encode()), occurrence])).random(3)
        colours, facings = choice.get("colours") or (), choice.get("facings") or ()
        told_colour = self._colours.intersection(adjectives.split())
        if colours and not told_colour:
            chosen = colours[0] if luck[0] < _OWN_COLOUR else colours[int(luck[1] * len(colours))]
            adjectives += f"{chosen} "
        if facings and not side:
            side = f" facing {facings[int(luck[2] * len(facings))]}"
        if adjectives == (found[2] or "") and side == (found[4] or ""):
            return caption
        if adjectives != (found[2] or "") and not found[2] and article.strip() in ("a", "an"):
            article = "an " if adjectives[0] in "aeiou" else "a "
        return f"{article}{adjectives}{noun}{side}"

    def complete_scene(self, scene: Scene, seed: int) -> Scene:
        """The scene with completed captions; the prompt stays."""
        before: Counter[str] = Counter()
        instances = []
        for instance in scene.instances:
            told = self.complete(instance.caption, seed, before[instance.caption])
            before[instance.caption] += 1
            instances.append(instance if told == instance.caption else replace(instance, caption=told))
        return replace(scene, instances=tuple(instances))


def complete_requests(
    scenes: Sequence[Scene], requests: Sequence[ImageRequest], choices: Mapping[str, Any]
) -> tuple[list[Scene], list[ImageRequest]]:
    """Give every picture a scene that says all.

    Args:
        scenes: of the call.
        requests: its pictures.
        choices: see `CaptionCompletion`; empty completes nothing.

    Returns:
        The scenes to be encoded, each once, and the requests with these.
    """
    if not choices:
        return list(scenes), list(requests)
    completion = CaptionCompletion(choices)
    rows: dict[tuple[int, tuple[str, ...]], int] = {}
    told: list[Scene] = []
    completed = []
    for request in requests:
        scene = completion.complete_scene(request.scene, request.seed)
        key = (request.scene_row, tuple(instance.caption for instance in scene.instances))
        if key not in rows:
            rows[key] = len(told)
            told.append(scene)
        completed.append(replace(request, scene=told[rows[key]], scene_row=rows[key]))
    return told, completed
