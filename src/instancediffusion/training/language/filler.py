"""Words around a noun phrase that change nothing of what is to be drawn."""

from __future__ import annotations

import numpy as np

from instancediffusion.scene.english import plural, with_article

LEADS = (
    *("a photo of", "a picture of", "an image of", "a drawing of", "a full view of", "a view of", "a close-up of"),
    *("a side view of", "an illustration of", "there is", "this is", "here is", "we see", "it is", "please draw"),
)
ADJECTIVES = (
    *("cute", "little", "big", "small", "large", "lovely", "nice", "beautiful", "pretty", "tiny", "huge", "happy"),
    *("funny", "good", "simple", "single", "real", "typical", "friendly", "sweet", "young", "old", "great", "fine"),
    *("fluffy", "adorable", "shiny", "new", "tall", "short", "fat", "sleepy", "quiet", "whole", "complete", "full"),
)
TAILS = (
    *("on the left", "on the right", "in the middle", "at the top", "at the bottom", "in the top left corner"),
    *("in the bottom right corner", "in the center", "in the foreground", "in the background", "in the picture"),
    *("sitting", "standing", "sitting down", "lying down", "sleeping", "walking", "running", "waiting", "resting"),
    *("by itself", "alone", "in front", "over there", "in full view", "on the ground", "on the floor", "outside"),
    *("seen from the side", "in the sun", "of some kind", "in the corner", "up close", "near the edge", "playing"),
)
BESIDE = (
    *("in front of", "behind", "next to", "beside", "near", "on", "on top of", "under", "above", "with", "holding"),
    *("wearing", "eating", "carrying", "covered by", "partly covered by", "hidden by", "surrounded by", "among", "in"),
    *("looking at", "sitting on", "standing on", "lying on", "sitting in front of", "standing next to", "leaning on"),
    *("sitting in", "floating over", "flying over", "chasing", "positioned behind", "placed on", "against", "inside"),
)
SURROUNDINGS = (
    *("table", "wooden table", "plate", "white plate", "kitchen counter", "wall", "rock", "chair", "bed", "floor"),
    *("tray", "bowl", "glass bowl", "basket", "shelf", "windowsill", "bench", "carpet", "road", "brick road", "fence"),
    *("field", "meadow", "lawn", "beach", "river", "stream", "lake", "sea", "iceberg", "forest", "mountain", "hill"),
    *("garden", "kitchen", "living room", "street", "bridge", "hat", "scarf", "collar", "red ribbon"),
    "black background",
)
COUNTS = ("two", "three", "four", "several", "some", "many", "a few", "a pair of", "a group of", "lots of")
FILLERS = (*LEADS, *ADJECTIVES, *TAILS, *COUNTS, *BESIDE, *SURROUNDINGS)
_ARTICLES = ("the", "one", "this", "my", "our", "that", "some", "his", "her")


def dressed(rng: np.random.Generator, phrase: str, *, number: str = "", tail: bool = True) -> str:
    """Write a noun phrase as people might: with or without article, filler words before and after.

    Args:
        rng: generator.
        phrase: adjectives and noun, singular, no article.
        number: "two", "several": then the phrase gets its plural.
        tail: whether words may follow.
    """
    lead, adjective, article, after, stop = rng.random(5)
    if adjective < 0.25:
        phrase = f"{_one(rng, ADJECTIVES)} {phrase}"
    if number:
        phrase = f"{number} {plural(phrase)}"
    elif article < 0.55 or lead < 0.18:
        phrase = with_article(phrase)
    elif article < 0.82:
        phrase = f"{'the' if article < 0.68 else _one(rng, _ARTICLES)} {phrase}"
    if lead < 0.18:
        phrase = f"{_one(rng, LEADS)} {phrase}"
    if tail and after < 0.25:
        phrase = f"{phrase} {_one(rng, TAILS)}"
    return f"{phrase}." if stop < 0.03 else phrase


def gibberish(rng: np.random.Generator) -> str:
    """Write one to three words that mean nothing."""
    words = []
    for _ in range(int(rng.integers(1, 4))):
        letters = rng.integers(97, 123, int(rng.integers(3, 9))).astype(np.uint8).tobytes().decode()
        words.append(letters)
    return " ".join(words)


def _one(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]
