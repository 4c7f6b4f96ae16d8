"""A scene in the words of a model with a small world: what it has no word for is replaced, or left out."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from instancediffusion.pipeline.vocabulary import unknown_words
from instancediffusion.scene import Instance, Scene
from instancediffusion.worlds import COLOURS, KINDS
from instancediffusion.worlds.words import listed, with_article

# What stands in for words of the examples: a thing of the same sort, or of the same shape and place.
_STANDS_FOR = {
    "corgi": "dog", "maltipoo": "dog", "shorthair": "cat", "robin": "bird", "eagle": "bird", "baloons": "balloon",
    "iceberg": "mountain", "igloo": "hut", "cathedral": "castle", "temple": "castle", "building": "castle",
    "statue": "crown", "palm": "palm tree", "tea": "cupcake", "coffee": "cupcake", "cup": "cupcake",
    "oranges": "apple", "orange": "apple", "tangerines": "apple", "cookies": "donut", "pastries": "donut",
    "bread": "cake", "plant": "tree", "leaves": "tree", "bouquet": "rose",
}  # fmt: skip
_BACKGROUNDS = (
    ("kitchen", "in a cozy room"),
    ("living room", "in a cozy room"),
    ("table", "on a wooden table"),
    ("castle", "in a park"),
    ("park", "in a park"),
    ("field", "in a meadow"),
    ("garden", "in a park"),
    ("iceberg", "in the snow"),
    ("stream", "in a meadow"),
)
# A model without a word for a part would draw the whole thing once more in its place.
_PARTS = frozenset("beak ear ears eye eyes face head legs mouth nose paw paws tail tongue wing wings".split())
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Reworded:
    """A scene in other words.

    Attributes:
        scene: the scene, or None if nothing of it can be drawn.
        changes: what replaces what, a line each; empty if nothing had to.
    """

    scene: Scene | None
    changes: tuple[str, ...] = ()


def reword(scene: Scene, vocabulary: Collection[str]) -> Reworded:
    """Put a scene into words that a model knows; what it draws where stays, but for what it has no word for.

    Args:
        scene: the scene.
        vocabulary: every word the model knows; empty if it may know any.
    """
    texts = [scene.prompt, *(instance.caption for instance in scene.instances)]
    if not vocabulary or not any(unknown_words(text, vocabulary) for text in texts):
        return Reworded(scene)
    kept: list[Instance] = []
    changes: dict[str, None] = {}
    for instance in scene.instances:
        caption = _caption(instance.caption, vocabulary)
        changes[f"{instance.caption}: {caption or 'left out'}"] = None
        if caption is not None:
            kept.append(replace(instance, caption=caption))
    if not kept:
        return Reworded(None)
    prompt = _prompt(scene, [instance.caption for instance in kept], vocabulary)
    unchanged = {f"{instance.caption}: {instance.caption}" for instance in scene.instances}
    return Reworded(
        replace(scene, prompt=prompt, negative_prompt=None, instances=tuple(kept)),
        tuple(change for change in changes if change not in unchanged),
    )


def _caption(text: str, vocabulary: Collection[str]) -> str | None:
    """The caption itself if all of it is known; else its first thing that can be drawn, with its colour."""
    if not unknown_words(text, vocabulary):
        return text
    lowered = text.lower()
    if _PARTS.intersection(unknown_words(text, vocabulary)):
        return None
    found = [(position, noun) for noun, position in _nouns(lowered).items() if not unknown_words(noun, vocabulary)]
    if not found:
        return None
    position, noun = min(found, key=lambda item: (item[0], -len(item[1])))
    before = _WORD.findall(lowered[:position])[-3:]
    colour = next((word for word in reversed(before) if word in COLOURS and word in vocabulary), "")
    return with_article(f"{colour} {noun}".strip())


def _nouns(lowered: str) -> dict[str, int]:
    """Things a text names, in words of the world -> where it first does."""
    found: dict[str, int] = {}
    names = {word: kind.name for kind in KINDS for word in kind.words} | _STANDS_FOR
    for word, name in names.items():
        match = re.search(rf"(?<!\w){re.escape(word)}(?:s|es)?(?!\w)(?!['’]s)", lowered)
        if match and (name not in found or match.start() < found[name]):
            found[name] = match.start()
    return found


def _prompt(scene: Scene, captions: list[str], vocabulary: Collection[str]) -> str:
    lowered = " ".join([scene.prompt, *(instance.caption for instance in scene.instances)]).lower()
    places = (phrase for word, phrase in _BACKGROUNDS if word in lowered and not unknown_words(phrase, vocabulary))
    return f"{listed(list(dict.fromkeys(captions)))} {next(places, '')}".strip()
