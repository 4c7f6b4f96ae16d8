"""Several drawings and several wordings of one kind: what is said is true of the drawing that was taken."""

import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from instancediffusion.errors import SettingsError
from instancediffusion.projects.emoji_world import (
    BACKGROUNDS,
    COLOURS,
    KINDS,
    STYLES,
    Drawing,
    ObjectKind,
    SpriteBook,
    World,
    WorldSpec,
)
from instancediffusion.projects.emoji_world.captions import LARGE, SMALL
from instancediffusion.projects.emoji_world.kinds import check_kinds
from instancediffusion.projects.emoji_world.places import PLACES, places
from instancediffusion.training.drawn_scenes import record

COLOURFUL = ("red", "green", "blue")
KIND = ObjectKind(
    "ball",
    "disc",
    ("globe",),
    ("round",),
    "red",
    COLOURFUL,
    (345, 15),
    others=(
        Drawing("noto-v1:disc", (), "blue", COLOURFUL, (345, 15), repaint=True),
        Drawing("fluent-flat:arrow", ("pointed",), facing="left"),
        Drawing("fluent:box", ("square",), "white"),
    ),
    everyday=("sphere", "marble"),
    animal=True,
)


def world_of(art, *kinds, **spec) -> World:
    extra = {drawing.icon: art[drawing.icon.split(":")[-1]] for kind in kinds for drawing in kind.drawings}
    return World(SpriteBook(kinds, art | extra), WorldSpec(**{"size": 64, "part_share": 0.0, **spec}), BACKGROUNDS)


@pytest.fixture(scope="module")
def instances(art):
    world = world_of(art, KIND)
    return [item for seed in range(400) for item in world.sample(seed).instances]


def test_every_drawing_is_taken_as_often(instances):
    counts = Counter(item.drawing for item in instances)
    assert set(counts) == {drawing.icon for drawing in KIND.drawings}
    expected = len(instances) / 4
    assert all(abs(count - expected) < 4 * (expected * 3 / 4) ** 0.5 for count in counts.values())


def test_what_the_captions_say_is_true_of_the_drawing(instances):
    drawings = {drawing.icon: drawing for drawing in KIND.drawings}
    said_of = Counter()
    for item in instances:
        drawing = drawings[item.drawing]
        assert item.style == drawing.style
        assert (item.facing is not None) == (drawing.facing is not None)
        assert item.colour == drawing.colour if not drawing.colours else item.colour in drawing.colours
        assert item.captions[0] == item.caption
        longer = max(item.box[2] - item.box[0], item.box[3] - item.box[1])
        for caption in item.captions:
            assert len(re.findall(rf"\b({'|'.join(KIND.nouns)})\b", caption)) == 1
            words = set(caption.split())
            assert words & set(COLOURS) <= {item.colour}
            assert words & set(STYLES) <= {item.style}
            assert words & {"round", "pointed", "square"} <= set(drawing.traits)
            assert not words & set(LARGE) or longer >= 0.5
            assert not words & set(SMALL) or longer <= 0.3
            place = next((place for place in PLACES if caption.endswith(place)), None)
            assert place is None or place in places(item.box)
            if place is None:
                assert words & {"left", "right"} <= {item.facing}
            said_of["place"] += place is not None
            said_of["style"] += bool(words & set(STYLES))
            said_of["size"] += bool(words & {*LARGE, *SMALL})
    assert min(said_of.values()) > 30


def test_colours_other_than_the_own_are_almost_always_told_and_sides_about_half_of_the_time(instances):
    painted = [item for item in instances if item.colour not in (None, "red")]
    told = [item.colour in caption.split() for item in painted for caption in item.captions[1:4]]
    assert np.mean(told) > 0.9
    sided = [item for item in instances if item.facing]
    told = [item.facing in caption.split() for item in sided for caption in item.captions[:4]]
    assert 0.3 < np.mean(told) < 0.6


def test_wordings_run_from_bare_to_full(instances):
    lengths = np.array([[len(caption.split()) for caption in item.captions[1:4]] for item in instances])
    assert (np.diff(lengths.mean(0)) > 0.8).all()
    bare = {item.captions[1].split()[0] for item in instances}
    assert {"a", "the", "one", "ball", "red"} <= bare


def test_exact_wordings_leave_nothing_open(instances):
    assert {len(item.captions) for item in instances} == {7}
    for item in instances:
        for caption in item.captions[4:]:
            assert {word for word in (item.style, item.colour, item.facing) if word} <= set(caption.split())


def test_one_art_set_is_the_world_with_those_drawings_alone(art):
    """Also the pictures of the time when there was one drawing of each kind: same seed, same picture and caption."""
    wide, alone = world_of(art, KIND, art_sets=("noto",)), world_of(art, replace(KIND, others=()))
    for seed in range(40):
        a, b = wide.sample(seed), alone.sample(seed)
        assert np.array_equal(a.image, b.image)
        assert (a.prompts, [item.captions for item in a.instances]) == (
            b.prompts,
            [item.captions for item in b.instances],
        )
    flat = world_of(art, KIND, art_sets=("fluent-flat", "fluent"))
    drawn = {item.drawing for seed in range(30) for item in flat.sample(seed).instances}
    assert drawn == {"fluent-flat:arrow", "fluent:box"}
    assert (flat.kinds[0].icon, flat.kinds[0].facing, flat.kinds[0].colour) == ("fluent-flat:arrow", "left", None)


def test_wrong_art_sets_are_told(art):
    with pytest.raises(SettingsError, match="clay"):
        WorldSpec(art_sets=("clay",))
    with pytest.raises(SettingsError, match="ball"):
        world_of(art, replace(KIND, others=()), objects=("ball",), art_sets=("fluent",))
    with pytest.raises(SettingsError, match="unknown art set"):
        Drawing("clay:ball")
    with pytest.raises(SettingsError, match="twice"):
        ObjectKind("ball", "disc", others=(Drawing("disc"),))


def test_prompts_are_true_in_every_wording(art):
    world = world_of(art, KIND, min_objects=2, max_objects=3)
    numbers = {"two": 2, "three": 3}
    for seed in range(150):
        sample = world.sample(seed)
        colours = Counter(item.colour for item in sample.instances)
        assert sample.prompts[0] == sample.prompt
        assert len(sample.prompts) == 3
        for prompt in sample.prompts:
            ground = next((phrase for phrase in _phrases(sample.background) if phrase in prompt), "")
            words = prompt.replace(ground, "").replace(",", " ").split()
            for before, colour in pairwise(words):
                if colour in COLOURFUL:
                    assert colours[colour] >= numbers.get(before, 1)


def test_no_word_names_two_kinds():
    with pytest.raises(SettingsError, match="marble"):
        check_kinds([KIND, ObjectKind("stone", "box", everyday=("marble",))])
    with pytest.raises(SettingsError, match="globe"):
        check_kinds([replace(KIND, everyday=("globe",))])
    for kind in KINDS:  # a word that says a colour would be untrue of a recoloured drawing, or be read as one
        for word in kind.everyday:
            assert not (set(word.split()) & set(COLOURS)) or (kind.name, word) == ("tangerine", "orange")
            assert re.fullmatch(r"[a-z]+( [a-z]+)*", word)


def test_training_keeps_all_wordings(art):
    sample = world_of(art, KIND).sample(3)
    kept = record(sample, 16)
    assert kept.prompts == sample.prompts
    assert [item.captions for item in kept.instances] == [item.captions for item in sample.instances]


def _phrases(background: str) -> tuple[str, ...]:
    return next(one.phrases for one in BACKGROUNDS if one.name == background)
