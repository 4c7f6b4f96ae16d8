"""Captions that leave a side or a colour open get one from the seed, and nothing else changes."""

from collections import Counter

import numpy as np
import pytest

from instancediffusion import Box, Instance, Scene
from instancediffusion.pipeline.completion import complete_requests
from instancediffusion.pipeline.requests import image_requests
from instancediffusion.scene.completion import CaptionCompletion
from instancediffusion.worlds.captions import Named, caption_choices, instance_caption, vocabulary
from instancediffusion.worlds.catalogue import CORE, KINDS

CHOICES = {
    "horse": {"facings": ["left", "right"]},
    "fish": {"colours": ["blue", "orange"], "facings": ["left", "right"]},
    "goldfish": {"facings": ["left", "right"]},
    "pear": {"colours": ["green", "red"]},
}
KNOWN = CaptionCompletion(CHOICES)


@pytest.mark.parametrize(
    "caption",
    [
        "a horse facing left",
        "an orange fish looking to the right",
        "a ripe red pear",
        "a ball",
        "two pears",
        "the head of a horse",
        "a horse on a pear",
        "a pear tree",
        "",
    ],
)
def test_captions_that_say_all_or_something_else_stay(caption):
    assert {KNOWN.complete(caption, seed) for seed in range(20)} == {caption}


def test_what_is_open_is_chosen_evenly_and_what_is_told_is_kept():
    sides = Counter(KNOWN.complete("a horse", seed) for seed in range(400))
    assert set(sides) == {"a horse facing left", "a horse facing right"}
    assert abs(sides["a horse facing left"] - 200) < 50  # five standard deviations
    colours = Counter(KNOWN.complete("a ripe pear", seed) for seed in range(400))
    assert set(colours) == {"a ripe green pear", "a ripe red pear"}
    assert colours["a ripe green pear"] > colours["a ripe red pear"]
    both = {KNOWN.complete("a fish", seed) for seed in range(100)}
    assert both == {f"{c} fish facing {s}" for c in ("a blue", "an orange") for s in ("left", "right")}
    assert all(KNOWN.complete("a red fish", seed).startswith("a red fish facing ") for seed in range(20))
    assert KNOWN.complete("A Goldfish", 1).startswith("a goldfish facing ")


def test_a_choice_belongs_to_seed_caption_and_occurrence_not_to_place_or_neighbours():
    horse, moved = (Instance("a horse", box=Box(x, 0.1, x + 0.3, 0.6)) for x in (0.1, 0.4))
    pear = Instance("a pear", box=Box(0.6, 0.6, 0.9, 0.9))

    def told(*instances, seed):
        scene = Scene("things", instances, 512, 512)
        return [instance.caption for instance in KNOWN.complete_scene(scene, seed).instances]

    for seed in range(10):
        assert told(horse, pear, seed=seed) == told(moved, pear, seed=seed) == told(pear, horse, seed=seed)[::-1]
    pairs = {tuple(told(horse, moved, seed=seed)) for seed in range(40)}
    assert len(pairs) == 4  # two of the same caption choose by themselves


def test_scenes_are_encoded_once_for_each_way_they_are_told():
    scenes = [Scene("a ball", (Instance("a ball", box=Box(0, 0, 1, 1)),), 64, 64), Scene("a hill", (), 64, 64)]
    scenes.append(Scene("a horse", (Instance("a horse", box=Box(0, 0, 1, 1)),), 64, 64))
    requests = image_requests(scenes, range(8), lambda scene: (64, 64))
    told, completed = complete_requests(requests, CHOICES, {})
    assert len(told) == 4
    assert [r.index for r in completed] == [r.index for r in requests]
    assert all(told[r.scene_row] is r.scene for r in completed)
    assert {r.scene.instances[0].caption for r in completed[16:]} == {"a horse facing left", "a horse facing right"}
    assert complete_requests(requests, {}, {}) == (scenes, requests)


def test_a_soccer_ball_is_no_ball_of_any_colour():
    """Nouns with nothing to choose were left out of the choices, and "a soccer ball" came out as a soccer red ball."""
    completion = CaptionCompletion(caption_choices([kind for kind in KINDS if kind.name in CORE]))
    whole = {kind.name for kind in KINDS if kind.name in CORE and not kind.colours and not kind.facings}
    assert "soccer ball" in whole
    for name in whole:
        assert {completion.complete(f"a {name}", seed) for seed in range(6)} == {f"a {name}"}


def test_what_the_prompt_says_of_the_only_one_is_not_open():
    """A fish that a prompt called white came out red, because its own caption named no colour."""
    fish, pear = Instance("a fish", box=Box(0.1, 0.1, 0.4, 0.4)), Instance("a pear", box=Box(0.5, 0.5, 0.9, 0.9))

    def told(prompt, *instances):
        scene = Scene(prompt, instances, 512, 512)
        return {tuple(i.caption for i in KNOWN.complete_scene(scene, seed).instances) for seed in range(30)}

    assert told("an orange fish facing right and a red pear", fish, pear) == {
        ("an orange fish facing right", "a red pear")
    }
    assert {captions[0].split()[1] for captions in told("an orange fish", fish)} == {"orange"}
    # A colour it cannot have, or two of a kind: then the seed chooses, as before.
    assert told("a purple pear", pear) == told("a pear", pear)
    assert len(told("a red pear and a green pear", pear)) == 2
    assert len(told("a red pear", pear, pear)) > 1


def test_a_prompt_alone_is_drawn_with_places_that_belong_to_the_seed():
    objects = {"nouns": {"horse": {"aspect": 1.2, "plural": "horses"}}, "grounds": ["on the grass"]}
    scenes = [Scene("two horses on the grass", (), 64, 64), Scene("a hill", (), 64, 64)]
    requests = image_requests(scenes, range(3), lambda scene: (64, 64))
    told, completed = complete_requests(requests, CHOICES, objects)
    assert len(told) == 4  # each seed places the horses elsewhere; the hill is no object
    for request in completed[:3]:
        assert len(request.scene.instances) == 2 and request.scene.prompt == scenes[0].prompt
        assert all(i.caption in ("a horse facing left", "a horse facing right") for i in request.scene.instances)
    assert [r.scene for r in complete_requests(requests, CHOICES, objects)[1]] == [r.scene for r in completed]
    assert completed[3].scene is scenes[1] or completed[3].scene == scenes[1]


def test_completed_captions_of_the_world_speak_its_own_language():
    """What is added must be words, in an order, that the world's own captions have."""
    core = [kind for kind in KINDS if kind.name in CORE]
    completion, known = CaptionCompletion(caption_choices(core)), set(vocabulary(core, ()))
    rng = np.random.default_rng(5)
    for kind in core:
        for _ in range(6):
            caption = instance_caption(rng, Named(kind, kind.colour, kind.facings[0] if kind.facings else None))
            told = completion.complete(caption, 3)
            assert set(told.split()) <= known
            assert not kind.facings or told.endswith(("left", "right"))
            assert not kind.colours or any(colour in told.split() for colour in kind.colours)
            assert completion.complete(told, 4) == told


@pytest.mark.parametrize(
    ("caption", "colour", "facing", "told"),
    [
        ("a fish", "orange", "left", "an orange fish facing left"),
        ("a blue fish", "blue", "right", "a blue fish facing right"),
        ("an old fish looking to the left", "blue", "left", "an old blue fish looking to the left"),
        ("a horse", None, "right", "a horse facing right"),
        ("a pear", "red", None, "a red pear"),
        ("a pear", None, None, "a pear"),
        ("a boat", "red", "left", "a boat"),
    ],
)
def test_what_is_known_is_told_where_the_caption_leaves_it_open(caption, colour, facing, told):
    assert KNOWN.tell(caption, colour, facing) == told
    assert KNOWN.tell(told, colour, facing) == told
