"""Captions: known words, and nothing that is not so."""

import re

import numpy as np
import pytest

from instancediffusion.projects.emoji_world.places import PLACES, places
from instancediffusion.scene.english import counted, listed, plural, with_article


def words(text: str) -> set[str]:
    return set(text.replace(",", " ").replace("'s", "").split())


def test_every_word_is_in_the_vocabulary(world, samples):
    known = set(world.vocabulary())
    for sample in samples:
        for text in (sample.prompt, *(item.caption for item in sample.instances)):
            assert words(text) <= known
            assert text == text.lower().strip()


def test_the_corpus_covers_the_vocabulary_and_no_more(world):
    seen = set().union(*map(words, world.captions_corpus(20_000)))
    known = set(world.vocabulary())
    assert seen <= known
    assert len(seen) > 0.85 * len(known)
    assert list(world.captions_corpus(50, seed=1)) == list(world.captions_corpus(50, seed=1))


def test_instance_captions_are_true(world, samples):
    kinds = {kind.name: kind for kind in world.kinds}
    for sample in samples:
        for item in sample.instances:
            kind = kinds[item.name]
            said = words(item.caption)
            assert any(word in item.caption for word in kind.words)
            assert said & {"red", "green", "blue", "white", "black"} <= {item.colour}
            assert said & {"left", "right"} <= {item.facing}


def test_bare_and_full_captions_both_occur(samples):
    captions = {item.caption for sample in samples for item in sample.instances}
    assert {"a box", "a disc", "an arrow"} <= captions
    assert any(re.fullmatch(r"a pointed arrow (facing|looking to the) (left|right)", text) for text in captions)


def test_what_is_turned_round_is_said_to_be(make_world):
    """One caption for two pictures taught a model to draw the mean of both, an animal with two heads."""
    plain, stated = make_world(part_share=0.0), make_world(part_share=0.0, state_turned=True)
    silent = 0
    for seed in range(60):
        one, other = plain.sample(seed), stated.sample(seed)
        assert np.array_equal(one.image, other.image)
        for before, after in zip(one.instances, other.instances, strict=True):
            turned = after.facing == "right"  # the sprite looks to the left
            for old, new in zip(before.captions, after.captions, strict=True):
                assert ("right" in words(new)) == turned if turned else new == old
            silent += turned and any(not words(old) & {"left", "right"} for old in before.captions)
    assert silent > 5


@pytest.mark.parametrize("order", [None, "reversed"])
def test_in_front_and_behind_are_true(make_world, order):
    world = make_world(min_objects=2, max_objects=3, objects=("disc", "arrow", "box"), repeat_share=0.0)
    nouns = {word: kind.name for kind in world.kinds for word in kind.words}
    told = 0
    for seed in range(500):
        sample = world.sample(seed, order=order)
        found = re.search(
            r"(\w+)(?: in)? (in front of|(?:partly )?covering|behind|partly (?:hidden|covered) by) an? (?:\w+ )*?"
            rf"({'|'.join(nouns)})\b",
            sample.prompt,
        )
        if not found or found[1] not in nouns:
            continue
        first, second = (next(i for i in sample.instances if i.name == nouns[found[k]]) for k in (1, 3))
        assert (first.z_order > second.z_order) == (found[2] in ("in front of", "covering", "partly covering"))
        assert (first.amodal & second.amodal).any()
        told += 1
    assert told > 30


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0.0, 0.0, 0.3, 0.3), {"on the left", "at the top", "in the top left corner"}),
        ((0.7, 0.7, 1.0, 0.9), {"on the right", "at the bottom", "in the bottom right corner"}),
        ((0.4, 0.45, 0.6, 0.65), {"in the middle"}),
        ((0.05, 0.3, 0.3, 0.6), {"on the left"}),
        ((0.0, 0.2, 0.7, 0.9), set()),
        ((0.3, 0.4, 0.5, 0.9), set()),
    ],
)
def test_places_are_said_where_nobody_would_disagree(box, expected):
    assert set(places(box)) == expected
    assert expected <= set(PLACES)
    mirrored = places((1 - box[2], box[1], 1 - box[0], box[3]))
    swap = {"left": "right", "right": "left"}
    assert set(mirrored) == {" ".join(swap.get(word, word) for word in place.split()) for place in expected}


def test_places_in_prompts_are_true(make_world):
    """Measured on the silhouettes: what is said to be on the left has its pixels there."""
    world = make_world(min_objects=1, max_objects=3, objects=("disc", "arrow", "box"), repeat_share=0.0, min_scale=0.15)
    nouns = {word: kind.name for kind in world.kinds for word in kind.words}
    halves = {"left": (1, slice(None, 32)), "right": (1, slice(32, None))}
    halves |= {"top": (0, slice(None, 32)), "bottom": (0, slice(32, None))}
    told = 0
    for seed in range(300):
        sample = world.sample(seed)
        for noun, place in re.findall(
            rf"({'|'.join(nouns)}) (?:on|at|in) the ([a-z ]+?)(?= in | on | at | with | under |,| and |$)",
            sample.prompt,
        ):
            found = [item for item in sample.instances if item.name == nouns[noun]]
            sides = set(place.split()) & set(halves)
            if not sides or len(found) != 1:
                continue
            for axis, half in map(halves.get, sides):
                part = found[0].amodal[half] if axis == 0 else found[0].amodal[:, half]
                assert part.sum() > 0.6 * found[0].amodal.sum(), sample.prompt
            told += 1
    assert told > 40


def test_counts_are_true(make_world):
    world = make_world(min_objects=3, max_objects=4, objects=("box",))
    numbers = {"a": 1, "two": 2, "three": 3, "four": 4}
    for seed in range(100):
        sample = world.sample(seed)
        total = sum(numbers[n] for n in re.findall(r"\b(a|two|three|four)(?: square)? (?:box|crate)", sample.prompt))
        assert total <= len(sample.instances)
        assert total >= len(sample.instances) - 1  # a prompt may leave one out


def test_colour_names_are_what_the_picture_shows(make_world):
    world = make_world(objects=("disc",), max_objects=1, native_share=0.0)
    looks = {"red": (0, 2, 1), "green": (1,), "blue": (2,)}
    for seed in range(60):
        sample = world.sample(seed)
        (item,) = sample.instances
        mean = sample.image[item.visible].mean(0)
        if item.colour in looks:
            assert np.argmax(mean) == looks[item.colour][0]
            assert mean.max() > 1.5 * np.median(mean)
        else:
            assert np.ptp(mean) < 25
            assert (mean.mean() > 150) == (item.colour == "white")


def test_english():
    assert [with_article(w) for w in ("apple", "pear", "unicorn", "owl", "hourglass")] == [
        "an apple",
        "a pear",
        "a unicorn",
        "an owl",
        "an hourglass",
    ]
    nouns = ["bus", "butterfly", "donkey", "polar bear", "slice of watermelon", "cactus", "fish", "leaf"]
    assert [plural(n) for n in nouns] == [
        "buses", "butterflies", "donkeys", "polar bears", "slices of watermelon", "cacti", "fish", "leaves"
    ]  # fmt: skip
    assert (counted("red car", 1), counted("red car", 3), counted("fox", 12)) == (
        "a red car",
        "three red cars",
        "many foxes",
    )
    assert (listed([]), listed(["a"]), listed(["a", "b", "c"])) == ("", "a", "a, b and c")
