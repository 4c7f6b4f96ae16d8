"""The order of pairs by the world's sprites: true of true pictures, of neither object in preference, silent where
nothing shows it."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image, ImageFilter
from safetensors.torch import load_file, save_file

from instancediffusion.evaluation import Seen
from instancediffusion.evaluation.orders import Overlap, in_front
from instancediffusion.evaluation.seen import SeenInstance
from instancediffusion.projects.emoji_judge import Judge, JudgeConfig
from instancediffusion.projects.emoji_judge.judge_task import with_words
from instancediffusion.projects.emoji_judge.network import JudgeNetwork
from instancediffusion.projects.emoji_judge.sprite_order import SpriteOrder

from .conftest import seen_of, small_world


@pytest.fixture(scope="module")
def crowded():
    return small_world(
        96, min_objects=2, max_objects=2, min_scale=0.45, max_scale=0.7, overlap_share=1.0, repeat_share=0.0
    )


@pytest.fixture(scope="module")
def pairs(crowded):
    """Overlapping pairs in both orders: (picture, detections of a perfect judge, which is in front)."""
    found = []
    for seed in range(60):
        for order in (None, "reversed"):
            sample = crowded.sample(seed, order)
            a, b = sample.instances
            # Two of this world's flat drawings in one colour look the same in either order.
            if (a.amodal & b.amodal).sum() > 100 and (a.name, a.colour) != (b.name, b.colour):
                found.append((Image.fromarray(sample.image), seen_of(sample).instances, int(b.z_order > a.z_order)))
    return found


def overlap(order, image, a, b):
    """What the overlap of two detections shows; None if nothing is said of it."""
    return order.overlaps(image, (a, b)).get((0, 1))


def right(order, pairs, change=lambda image: image):
    """Of pairs, how often it says who is in front, and how often it says nothing."""
    said = [overlap(order, change(image), *seen) for image, seen, _ in pairs]
    fronts = [None if one is None else one.front for one in said]
    return (
        np.mean([front == true for front, (_, _, true) in zip(fronts, pairs, strict=True)]),
        np.mean([front is None for front in fronts]),
    )


def test_who_is_in_front_is_read_off_true_pictures(crowded, pairs):
    """A network that was taught it from windows got .65 of the world's own pairs right."""
    order = SpriteOrder(crowded.sprites)
    assert len(pairs) > 60 and {true for _, _, true in pairs} == {0, 1}
    assert right(order, pairs)[0] > 0.95
    assert right(order, pairs, lambda image: image.filter(ImageFilter.GaussianBlur(2)))[0] > 0.9


def test_colour_orientation_and_exact_box_are_found_not_taken(crowded, pairs):
    """The judge's boxes are a little off, and its colours and orientations are not read."""
    rng = np.random.default_rng(0)

    def worse(one: SeenInstance) -> SeenInstance:
        box = one.box + rng.uniform(-0.03, 0.03, 4)
        return dataclasses.replace(one, colour=None, facing=None, box=box)

    assert right(SpriteOrder(crowded.sprites), [(im, tuple(map(worse, s)), t) for im, s, t in pairs])[0] > 0.9


def test_objects_that_leave_the_picture_are_read_as_whole_ones(crowded, pairs):
    """A box that reaches over the border is that of the whole object: its sprite is cut there, not squeezed."""
    cut = 16

    def moved(one: SeenInstance, side: int) -> SeenInstance:
        box = (one.box * side - cut) / (side - cut)
        return dataclasses.replace(one, box=box, given=box)

    shifted = [
        (image.crop((cut, cut, *image.size)), tuple(moved(one, image.width) for one in seen), true)
        for image, seen, true in pairs
    ]
    assert sum(one.box.min() < 0 for _, seen, _ in shifted for one in seen) > 20
    assert right(SpriteOrder(crowded.sprites), shifted)[0] > 0.85


def test_exchanging_the_objects_exchanges_the_answer(crowded, pairs):
    order = SpriteOrder(crowded.sprites)
    for image, (a, b), _ in pairs[:20]:
        one, other = overlap(order, image, a, b), overlap(order, image, b, a)
        assert (one is None) == (other is None)
        if one is not None:
            assert dataclasses.asdict(one.exchanged) == pytest.approx(dataclasses.asdict(other))


def test_where_nothing_shows_the_order_nobody_leads(crowded, pairs):
    """Control: pictures of one grey, and pictures in which both objects are half there."""
    order = SpriteOrder(crowded.sprites)
    assert right(order, pairs, lambda image: Image.new("RGB", image.size, (128, 128, 128)))[0] < 0.5
    clear, mixed = [], []
    for k in range(0, len(pairs), 2):
        (one, seen, _), (other, _, _) = pairs[k], pairs[k + 1]
        clear.append(overlap(order, one, *seen))
        mixed.append(overlap(order, Image.blend(one, other, 0.5), *seen))
    shown = [(a, b) for a, b in zip(clear, mixed, strict=True) if a is not None and b is not None]
    assert len(shown) > 20
    assert np.mean([a.blend for a, _ in shown]) < 0.15 < 0.6 < np.mean([b.blend for _, b in shown])
    assert np.mean([abs(b.lead) for _, b in shown]) < 0.2 < 0.7 < np.mean([abs(a.lead) for a, _ in shown])


def test_objects_that_do_not_touch_or_cannot_be_laid_say_nothing(crowded, pairs):
    image, (a, b), _ = pairs[0]
    order = SpriteOrder(crowded.sprites)
    for box in ([0.0, 0.0, 0.01, 0.01], [1.2, 1.2, 1.6, 1.6], [-0.5, -0.5, -0.1, -0.1]):
        assert overlap(order, image, a, dataclasses.replace(b, box=np.array(box))) is None
    left, off = np.array([0.0, 0.0, 0.3, 0.3]), np.array([0.7, 0.7, 1.0, 1.0])
    assert overlap(order, image, dataclasses.replace(a, box=left), dataclasses.replace(b, box=off)) is None


def test_a_judge_says_of_every_two_boxes_that_overlap(crowded, tmp_path):
    config = with_words(JudgeConfig(side_px=64, crop_px=32, crop_widths=(8, 8, 8)), crowded)
    judge = Judge(JudgeNetwork(config), sprites=crowded.sprites)
    judge.network.reader.head.bias.data[0] = -20  # it takes every box for an object
    sample = next(one for one in map(crowded.sample, range(50)) if sum(i.amodal for i in one.instances).max() > 1)
    boxes = np.array([item.box for item in sample.instances], float)
    (read,) = judge.read([sample.image], [boxes])
    assert all(np.array_equal(one.given, box) for one, box in zip(read.instances, boxes, strict=True))
    assert all(one.given is None for one in judge.look([sample.image])[0].instances)
    seen = judge.with_overlaps(sample.image, read)
    assert set(seen.overlaps) == {(0, 1)} and not read.overlaps
    assert seen.instances == read.instances and np.array_equal(seen.labels, read.labels)
    expected = overlap(SpriteOrder(crowded.sprites), Image.fromarray(sample.image), *read.instances)
    assert seen.overlaps[0, 1] == expected


def test_judges_that_had_a_network_for_pairs_are_read_without_it(crowded, tmp_path):
    config = with_words(JudgeConfig(side_px=64, widths=(8, 8, 8, 8), depths=(0, 0, 0, 0), hidden=8), crowded)
    judge = Judge(JudgeNetwork(config), {"name": "old"})
    judge.save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({**weights, "pairs.stem.weight": weights["stem.weight"] * 1}, tmp_path / "model.safetensors")
    values = json.loads((tmp_path / "config.json").read_text())
    values["judge"] |= {"pair_px": 64, "pair_widths": [80, 160, 192]}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert Judge.load(tmp_path).config == config


def test_the_order_is_what_leads():
    pair = Overlap(0.2, 0.7, 50, lead=0.8)
    assert pair.front == 0 and pair.exchanged.front == 1 and pair.exchanged.exchanged == pair
    assert in_front(0, pair)["right"] == 1 and in_front(1, pair)["right"] == 0
    assert Overlap(0.2, 0.7, 50).front == 1 and Overlap(0.5, 0.5, 9, lead=0.05).front is None
    assert Seen(np.zeros((4, 4), np.uint8), ()).overlaps == {}
