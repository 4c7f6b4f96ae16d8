"""Prompts are read as the world writes them, and what they name gets places that obey them."""

from collections import Counter

import numpy as np
import pytest

from instancediffusion import Box, Instance, Scene
from instancediffusion.geometry import box_iou
from instancediffusion.scene.arranging import MOST, Arrangement
from instancediffusion.scene.mentions import Mention, Noun, mentions
from instancediffusion.worlds.backgrounds import BACKGROUNDS
from instancediffusion.worlds.captions import Named, prompt_caption
from instancediffusion.worlds.catalogue import CORE, KINDS
from instancediffusion.worlds.words import plural

WORDS = ("dog", "cat", "bear", "polar bear", "house", "balloon", "bunch of grapes", "table", "star")
NOUNS = {word: Noun(plural=plural(word), stands=word not in ("balloon", "star")) for word in WORDS}
GROUNDS = ("on the grass", "on a table")


def read(prompt):
    return mentions(prompt, NOUNS, GROUNDS)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a dog", [Mention("dog", "dog")]),
        ("A fluffy Dog!", [Mention("dog", "fluffy dog")]),
        ("a picture of two red balloons", [Mention("balloon", "red balloon", 2)]),
        ("3 cats on the grass", [Mention("cat", "cat", 3)]),
        ("dogs", [Mention("dog", "dog", 2)]),
        ("a polar bear and a bear", [Mention("polar bear", "polar bear"), Mention("bear", "bear")]),
        ("a bunch of grapes on a table", [Mention("bunch of grapes", "bunch of grapes")]),
        ("the head of a dog", []),
        ("a hotdog, a dog-house", []),
        ("a cat facing left in the top right corner", [Mention("cat", "cat", 1, "left", "top right")]),
        ("a dog in front of a house", [Mention("dog", "dog", relation="front"), Mention("house", "house")]),
        ("a dog is behind the old house", [Mention("dog", "dog", relation="behind"), Mention("house", "old house")]),
        ("a dog on the left of a cat", [Mention("dog", "dog", relation="left"), Mention("cat", "cat")]),
        ("a dog on the left, a cat", [Mention("dog", "dog", place="left"), Mention("cat", "cat")]),
        ("a cat on top of a table", [Mention("cat", "cat", relation="on"), Mention("table", "table")]),
        ("two dogs behind a cat", [Mention("dog", "dog", 2), Mention("cat", "cat")]),
        ("nothing that is known", []),
    ],
)
def test_prompts_are_read(prompt, expected):
    assert read(prompt) == expected


def test_the_worlds_own_prompts_are_read_without_error():
    """Each was written from objects that are known here: kinds, numbers, colours and who is in front come back."""
    kinds = [kind for kind in KINDS if kind.name in CORE]
    nouns = {word: Noun(plural=plural(word)) for kind in kinds for word in kind.words}
    owner = {word: kind.name for kind in kinds for word in kind.words}
    grounds = [phrase for ground in BACKGROUNDS for phrase in ground.phrases]
    rng = np.random.default_rng(0)
    relations = 0
    for _ in range(400):
        chosen = [kinds[int(k)] for k in rng.integers(len(kinds), size=int(rng.integers(1, 6)))]
        named = [
            Named(kind, str(rng.choice(kind.colours)) if kind.colours else None, "left" if kind.facings else None)
            for kind in chosen
        ]
        z_order = [int(z) for z in rng.permutation(len(named))]
        pairs = [(0, 1)] if len(named) > 1 else []
        ground = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
        prompt = prompt_caption(rng, named, z_order, pairs, ground)
        found = mentions(prompt, nouns, grounds)
        seen = Counter({name: 0 for name in owner.values()})
        for one in found:
            seen[owner[one.noun]] += one.count
        asked = Counter(kind.name for kind in chosen)
        # One in twelve prompts leaves an object out.
        assert not seen - asked and sum((asked - seen).values()) <= 1, (prompt, found)
        for index, one in enumerate(found):
            if one.relation:
                relations += 1
                assert one.relation in ("front", "behind"), prompt
                names = (owner[one.noun], owner[found[index + 1].noun])
                first, second = (chosen.index(next(k for k in chosen if k.name == name)) for name in names)
                assert (one.relation == "front") == (z_order[first] > z_order[second]), prompt
    assert relations > 50


def arranged(prompt, seed=0, width=512, height=512):
    return Arrangement(NOUNS, GROUNDS).arrange(Scene(prompt, (), width, height), seed)


def boxes(scene):
    return np.array([instance.box.xyxy for instance in scene.instances])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [(512, 512), (768, 384), (384, 768)])
def test_objects_stand_on_the_canvas_side_by_side_in_their_shape(seed, size):
    scene = arranged("a dog, two cats and a star", seed, *size)
    assert [i.caption for i in scene.instances] == ["a dog", "a cat", "a cat", "a star"]
    found = boxes(scene)
    assert (found >= 0).all() and (found <= 1).all()
    assert max(float(box_iou(a, b)[0, 0]) for i, a in enumerate(found) for b in found[:i]) < 0.05
    sides = (found[:, 2:] - found[:, :2]) * size
    assert np.allclose(sides[:, 0] / sides[:, 1], 1, atol=0.02)


def test_order_and_places_are_obeyed():
    for seed in range(8):
        front = arranged("a dog in front of a house", seed)
        behind = arranged("a dog behind a house", seed)
        assert [i.z_order for i in front.instances] == [1, 0]
        assert [i.z_order for i in behind.instances] == [0, 1]
        assert 0.02 < box_iou(*boxes(front))[0, 0] < 0.5
        dog, cat = boxes(arranged("a dog left of a cat", seed))
        assert dog[2] <= cat[0] + 0.02
        balloon, house = boxes(arranged("a balloon above a house", seed))
        assert balloon[3] <= house[1] + 0.02
        (x0, y0, x1, y1) = boxes(arranged("a cat in the bottom right corner", seed))[0]
        assert (x0 + x1) / 2 > 0.5 < (y0 + y1) / 2
        assert all(i.z_order is None for i in arranged("a dog and a cat", seed).instances)
    chain = arranged("a dog in front of a cat behind a house")
    assert [i.z_order for i in chain.instances] == [1, 0, 1]


def test_places_belong_to_the_seed():
    assert arranged("a dog and a cat", 1) == arranged("a dog and a cat", 1)
    assert arranged("a dog and a cat", 1) != arranged("a dog and a cat", 2)


def test_what_the_user_placed_and_what_names_nothing_stay():
    scene = Scene("a dog and a cat", (Instance("a dog", box=Box(0, 0, 0.5, 0.5)),), 512, 512)
    assert Arrangement(NOUNS).arrange(scene, 0) is scene
    empty = Scene("a hill", (), 512, 512)
    assert Arrangement(NOUNS).arrange(empty, 0) is empty
    assert Arrangement({}).arrange(Scene("a dog", (), 512, 512), 0).instances == ()


def test_crowds_are_cut():
    assert len(arranged("eight dogs, seven cats and two houses").instances) == MOST
