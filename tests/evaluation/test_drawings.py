"""The drawings as a judge, on pictures whose answer is known by construction."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from instancediffusion.evaluation import DrawingsJudge, InstanceMetrics, TrueInstance, Truth, evaluate, layout_of
from instancediffusion.evaluation.drawings import NOBODY, UNDECIDED, Drawings, shown, shown_iou, shown_share
from instancediffusion.geometry import box_iou

from .conftest import small_world

SIDE = 96


@pytest.fixture(scope="module")
def world():
    return small_world(SIDE)


@pytest.fixture(scope="module")
def judge(world):
    return DrawingsJudge(world.sprites, world.kinds)


@pytest.fixture(scope="module")
def drawings(world):
    return Drawings(world.sprites)


def canvas(*colours):
    """Bands of colours from top to bottom."""
    heights = np.array_split(np.arange(SIDE), len(colours))
    return np.concatenate([np.full((len(h), SIDE, 3), c, np.uint8) for h, c in zip(heights, colours, strict=True)])


def painted(drawn, ground):
    """Lay drawings on a ground, later ones in front."""
    image = ground.copy()
    for one in drawn:
        image[one.inside] = one.pixels[one.inside]
    return Image.fromarray(image)


def asked(name, box, **more):
    return TrueInstance(name, told=("box",), box=np.array(box, float), **more)


@pytest.mark.parametrize("group", ["point", "scribble"])
def test_what_a_point_tells_of_is_found_as_large_as_it_is(world, judge, group):
    """Laid inside of anything of its colour a drawing explains something: smaller ones were found, and apart."""
    found = []
    for seed in range(12):
        layout = layout_of(world, world.sample(seed), group, seed)
        _, places, _ = judge.locate(layout.sample.image, layout.truth)
        found += [
            0.0 if place is None else float(box_iou(place, np.asarray(item.box))[0, 0])
            for place, item in zip(places, layout.sample.instances, strict=True)
        ]
    assert np.mean(found) > 0.85 and np.mean(np.array(found) > 0.6) > 0.9


@pytest.mark.parametrize("group", ["box", "mask", "point", "scribble"])
def test_the_worlds_own_pictures_have_full_marks(world, judge, group):
    layouts = [layout_of(world, world.sample(seed), group, seed) for seed in range(12)]
    metrics = InstanceMetrics()
    for layout in layouts:
        metrics.update(judge.look_for([layout.sample.image], [layout.truth])[0], layout.truth)
    scores = metrics.compute()
    assert scores["missed"].value == 0 and scores["kind"].value == 1
    place = {"box": "box_iou", "mask": "mask_iou", "point": "point_inside", "scribble": "stroke_inside"}[group]
    assert scores[place].value > 0.85


def test_each_fault_is_seen_for_what_it_is(judge, drawings):
    place, size = np.array([0.3, 0.3, 0.7, 0.7]), (SIDE, SIDE)
    ground = canvas((120, 160, 200), (90, 110, 60))

    def verdict(shown_as, wanted):
        drawn = [] if shown_as is None else [drawings.place(shown_as, place, size)]
        truth = Truth((wanted,))
        report = evaluate([(painted(drawn, ground), truth)], judge).groups[0].generated.scores
        return {name: one.value for name, one in report.items() if one is not None}

    red = asked("disc", place, colour="red")
    assert verdict(red, red)["as_asked"] == 1
    assert verdict(None, red)["missed"] == 1
    wrong_colour = verdict(dataclasses.replace(red, colour="blue"), red)
    assert (wrong_colour["kind"], wrong_colour["colour"]) == (1, 0)
    wrong_kind = verdict(asked("gem", place), red)
    assert (wrong_kind["missed"], wrong_kind["kind"]) == (0, 0)
    left = asked("arrow", place, facing="left")
    turned = verdict(dataclasses.replace(left, facing="right"), left)
    assert (turned["kind"], turned["facing"]) == (1, 0)


def test_objects_nobody_placed_are_found_anywhere_but_not_twice(judge, drawings):
    there = drawings.place(TrueInstance("gem"), np.array([0.1, 0.55, 0.5, 0.95]), (SIDE, SIDE))
    image = painted([there], canvas((120, 160, 200)))
    seen = judge.look_for([image], [Truth((TrueInstance("gem"), TrueInstance("gem")))])[0]
    assert len(seen.instances) == 1
    assert np.abs(seen.instances[0].box - [0.1, 0.55, 0.5, 0.95]).max() < 0.05


def test_pixels_belong_to_the_nearer_drawing_or_to_the_ground(drawings):
    size = (SIDE, SIDE)
    disc = drawings.place(TrueInstance("disc", "blue"), np.array([0.2, 0.2, 0.6, 0.6]), size)
    gem = drawings.place(TrueInstance("gem"), np.array([0.4, 0.4, 0.8, 0.8]), size)
    ground = canvas((230, 230, 230), (40, 60, 40))
    for order in ((disc, gem), (gem, disc)):
        labels = shown(painted(order, ground), [disc, gem])
        front = order[1].inside
        for index, one in enumerate((disc, gem)):
            visible = one.inside if one is order[1] else one.inside & ~front
            assert shown_iou(labels, index, visible) > 0.9
            assert shown_share(labels, index, visible) > 0.9
    # One of them alone: the other is not seen, though it would look unlike the ground.
    labels = shown(painted([gem], ground), [disc, gem])
    assert shown_iou(labels, 0, disc.inside & ~gem.inside) < 0.1
    # An object bleeding over its rim costs IoU, not the share of its own place.
    wide = np.asarray(painted([gem], ground)).copy()
    grown = np.roll(gem.inside, 2, 1) | np.roll(gem.inside, -2, 1)
    wide[grown & ~gem.inside] = wide[gem.inside].mean(0)
    labels = shown(Image.fromarray(wide), [gem])
    assert shown_iou(labels, 0, gem.inside) < 0.92 < shown_share(labels, 0, gem.inside)


def test_what_looks_like_the_ground_decides_nothing(drawings):
    gem = drawings.place(TrueInstance("gem"), np.array([0.3, 0.3, 0.7, 0.7]), (SIDE, SIDE))
    labels = shown(Image.fromarray(canvas(gem.pixels[gem.inside].mean(0).astype(int))), [gem])
    assert (labels[gem.inside] == UNDECIDED).all()
    assert shown_iou(labels, 0, gem.inside) is None and shown_share(labels, 0, gem.inside) is None
    assert (shown(Image.fromarray(canvas((9, 9, 9))), []) == NOBODY).all()


def test_a_canvas_full_of_objects_has_no_ground(drawings):
    size, everything = (SIDE, SIDE), np.array([-0.6, -0.6, 1.6, 1.6])
    disc = drawings.place(TrueInstance("disc", "green"), everything, size)
    gem = drawings.place(TrueInstance("gem"), np.array([0.3, 0.3, 0.7, 0.7]), size)
    assert disc.inside.all()
    labels = shown(painted([disc, gem], canvas((0, 0, 0))), [disc, gem])
    assert shown_iou(labels, 1, gem.inside) > 0.9
    assert shown_iou(labels, 0, ~gem.inside) > 0.9
