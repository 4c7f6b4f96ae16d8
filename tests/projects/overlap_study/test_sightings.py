"""Detections, matching and ownership of pixels, with detectors and segmenters that know the answer."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from tests.evaluation.conftest import small_world

from instancediffusion.evaluation.orders import (
    Sighting,
    agreement,
    box_pixels,
    distinct,
    noun_phrase,
    owned_overlap,
    sight,
)
from instancediffusion.evaluation.truth import truth_of_scene
from instancediffusion.projects.overlap_study.composites import Item, compose
from instancediffusion.projects.overlap_study.flip_and_grid import both_orders
from instancediffusion.projects.overlap_study.hulls import hull
from instancediffusion.projects.overlap_study.photograph_rows import measure_sighting
from instancediffusion.projects.overlap_study.study_metrics import pair_summary
from instancediffusion.scene import Box, Instance, Mask, Point, Scene, Scribble

SIDE = 96
ITEMS = (Item("disc", (0.4, 0.5), 0.5, "blue"), Item("gem", (0.62, 0.5), 0.5))
CANVAS = Image.new("RGB", (SIDE, SIDE))


@pytest.fixture(scope="module")
def world():
    return small_world(SIDE)


@pytest.mark.parametrize(
    "caption, phrase",
    [
        ("a ripe red apple at the front", "ripe red apple"),
        ("a yellow pear, partly covered", "yellow pear"),
        ("a large, sturdy wooden table", "large sturdy wooden table"),
        ("a tall ceramic vase on the table covered by the flower", "tall ceramic vase"),
        ("a polar bear standing majestically on an iceberg", "polar bear"),
        ("an igloo neatly built with blocks of ice, providing shelter", "igloo"),
        ("A full view of a donkey", "donkey"),
        ("The head of the donkey", "head of the donkey"),
        ("3 baloons - a yellow, a red and a blue baloon floating in the air", "3 baloons"),
        ("a big flying bird", "big flying bird"),
        ("a blue butterfly", "blue butterfly"),
        ("the", "the"),
    ],
)
def test_detectors_are_asked_for_the_noun(caption, phrase):
    assert noun_phrase(caption) == phrase
    assert noun_phrase(phrase) == phrase


def candidates(count=40, phrases=3, seed=0):
    rng = np.random.default_rng(seed)
    corner = rng.random((count, 2)) * 0.6
    return np.concatenate([corner, corner + 0.1 + 0.3 * rng.random((count, 2))], 1), rng.random((count, phrases))


def test_suppression_needs_no_order_and_is_done_once():
    boxes, scores = candidates()
    kept = distinct(boxes, scores, 0.3)
    shuffled = np.random.default_rng(1).permutation(len(boxes))
    again = distinct(boxes[shuffled], scores[shuffled], 0.3)
    assert [one.confidence for one in kept] == [one.confidence for one in again]
    assert [one.confidence for one in kept] == sorted((one.confidence for one in kept), reverse=True)
    one_hot = np.array([[one.confidence * (one.phrase == p) for p in range(3)] for one in kept])
    assert len(distinct(np.array([one.box for one in kept]), one_hot, 0.3)) == len(kept)
    assert distinct(boxes, scores, 1.0) == []


def test_one_object_stands_for_one_phrase():
    """A box that fits two phrases shows one object; two phrases in different places show two."""
    box = np.array([[0.2, 0.2, 0.6, 0.6]])
    both = np.concatenate([box, box + 0.01, box + 0.1])
    kept = distinct(both, np.array([[0.9, 0.1], [0.1, 0.8], [0.1, 0.7]]), 0.2)
    assert [(one.phrase, one.confidence) for one in kept] == [(0, 0.9), (1, 0.7)]


def test_places_agree_by_the_most_telling_location():
    box = np.array([0.2, 0.2, 0.6, 0.6])
    shown = {
        "box": (Instance("x", box=Box(0.2, 0.2, 0.6, 0.6), point=Point(0.9, 0.9)), 1.0),
        "point": (Instance("x", point=Point(0.3, 0.5)), 1.0),
        "far": (Instance("x", point=Point(0.9, 0.5)), 0.0),
        "stroke": (Instance("x", scribble=Scribble(((0.3, 0.3), (0.5, 0.5), (0.9, 0.5), (0.3, 0.9)))), 0.5),
    }
    for instance, expected in shown.values():
        wanted = truth_of_scene(Scene("x", (instance,), SIDE, SIDE), ()).instances[0]
        assert agreement(box, wanted) == pytest.approx(expected)


class Known:
    """Detects and outlines the objects it was told of: caption -> [(bitmap, confidence)]."""

    def __init__(self, objects):
        self.objects = objects

    def detect(self, image, phrases):
        boxes, scores = [], []
        for phrase, found in self.objects.items():
            for bitmap, confidence in found:
                boxes.append(_box(bitmap))
                scores.append([confidence * (phrase == one) for one in phrases])
        return np.array(boxes).reshape(-1, 4), np.array(scores).reshape(len(boxes), len(phrases))

    def segment(self, image, boxes):
        shown = [bitmap for found in self.objects.values() for bitmap, _ in found]
        own = [min(shown, key=lambda bitmap: np.abs(_box(bitmap) - box).max()) for box in boxes]
        return np.where(np.array(own), 4.0, -4.0).astype(np.float32)

    def sight(self, scene):
        return sight(CANVAS, scene, self.detect, self.segment, 0.2)


def _box(bitmap):
    y, x = np.nonzero(bitmap)
    height, width = bitmap.shape
    return np.array([x.min() / width, y.min() / height, (x.max() + 1) / width, (y.max() + 1) / height])


def bitmap(x0, y0, x1, y1):
    return box_pixels(np.array([x0, y0, x1, y1]), (SIDE, SIDE))


def test_equal_captions_go_to_the_nearer_places():
    scene = Scene("x", (Instance("an ear", point=Point(0.1, 0.1)), Instance("ear", point=Point(0.8, 0.8))), SIDE, SIDE)
    ears = [(bitmap(0.7, 0.7, 0.9, 0.9), 0.9), (bitmap(0, 0, 0.2, 0.2), 0.4)]
    found = Known({"ear": ears}).sight(scene)
    assert found.boxes[0][0] == 0
    assert found.boxes[1][0] == pytest.approx(0.7, abs=0.02)
    assert found.detected == found.wanted == (2, 2)
    assert np.array_equal(found.surest[0], found.boxes[1])
    # The surer of two that hold the point; and one that holds none is none.
    more = Known({"ear": [*ears, (bitmap(0, 0, 0.3, 0.3), 0.6)]}).sight(scene)
    assert more.boxes[0][2] == pytest.approx(0.3, abs=0.02)
    assert more.detected == (3, 3)
    elsewhere = Known({"ear": [(bitmap(0.4, 0.4, 0.6, 0.6), 0.9)]}).sight(scene)
    assert elsewhere.boxes == (None, None)
    assert elsewhere.surest[0] is not None
    assert not elsewhere.claims.any()
    assert not elsewhere.seen.labels.any()


def sighting(first, second):
    """Two instances of known log odds, found everywhere."""
    whole = np.array([0.0, 0.0, 1.0, 1.0])
    return Sighting((whole, whole), np.stack([first, second]).astype(np.float32), (1, 1), (1, 1), (whole, whole))


def test_the_surer_claim_owns_a_pixel_and_nobody_what_nobody_claims():
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(2, SIDE, SIDE))
    everything = np.ones((SIDE, SIDE), bool)
    found = owned_overlap(sighting(first, second).seen, 0, 1, everything)
    region = (slice(1, -1), slice(1, -1))
    assert found.first == pytest.approx(((first > 0) & (first > second))[region].mean(), abs=0.02)
    assert found.neither == pytest.approx(((first <= 0) & (second <= 0))[region].mean(), abs=0.02)
    swapped = owned_overlap(sighting(second, first).seen, 0, 1, everything)
    assert (swapped.first, swapped.second) == (found.second, found.first)
    louder = owned_overlap(sighting(9 * first, 9 * second).seen, 0, 1, everything)
    assert louder == found
    hushed = owned_overlap(sighting(first - 99, second - 99).seen, 0, 1, everything)
    assert (hushed.neither, hushed.front) == (1, None)


def test_a_hull_is_the_smallest_convex_one():
    from skimage.morphology import convex_hull_image

    rng = np.random.default_rng(4)
    for count in (3, 5, 40):
        dots = np.zeros((40, 56), bool)
        dots[rng.integers(0, 40, count), rng.integers(0, 56, count)] = True
        found = hull(dots)
        assert (found & dots).sum() == dots.sum()
        assert np.array_equal(hull(found), found)
        assert (found ^ convex_hull_image(dots, offset_coordinates=False)).mean() < 0.02
    y, x = (np.mgrid[:64, :64] + 0.5) / 32 - 1
    disc, bite = np.hypot(x, y) < 0.8, np.hypot(x - 0.8, y) < 0.5
    assert np.array_equal(hull(disc), disc)
    assert (hull(disc & ~bite) & ~disc).sum() == 0
    assert (hull(disc & ~bite) & bite).sum() > 0.4 * (disc & bite).sum()
    assert not hull(np.zeros((4, 5), bool)).any()


def test_an_overlap_too_small_says_nothing():
    tiny = np.zeros((SIDE, SIDE), bool)
    tiny[0, :2] = True
    assert owned_overlap(sighting(np.ones((SIDE, SIDE)), -np.ones((SIDE, SIDE))).seen, 0, 1, tiny) is None


def cells_and_knowledge(world, told):
    """Both orders of a layout, each with somebody who knows its picture."""
    cells = list(both_orders(world, ITEMS, "pair/0", "flip", 3, {}, (told,)))
    samples = [compose(world, ITEMS, ranks, "meadow", seed=3) for ranks in ((1, 0), (0, 1))]
    known = [Known({noun_phrase(i.caption): [(i.visible, 0.9)] for i in sample.instances}) for sample in samples]
    return cells, known


@pytest.mark.parametrize("told", ["box", "mask", "point", "scribble"])
def test_both_orders_come_out_right_or_turned_round(world, told):
    cells, known = cells_and_knowledge(world, told)
    right = [measure_sighting(cell, one.sight(cell.scene), "x") for cell, one in zip(cells, known, strict=True)]
    assert [row["missed"] for row in right] == [0, 0]
    assert [row["doubled"] for row in right] == [0, 0]
    found = pair_summary(right)
    assert (found["pair_right"].value, found["flipped"].value, found["prior"].value) == (1, 1, 0)
    if told == "mask":
        assert min(row["visible_iou"] for row in right) > 0.97
        assert min(row["hidden_complete"] for row in right) > 0.97
        assert max(row["blend"] for row in right) < 0.05
    wrong = [measure_sighting(cell, one.sight(cell.scene), "x") for cell, one in zip(cells, known[::-1], strict=True)]
    assert pair_summary(wrong)["pair_right"].value == 0
    deaf = [measure_sighting(cell, known[0].sight(cell.scene), "x") for cell in cells]
    assert (pair_summary(deaf)["flipped"].value, pair_summary(deaf)["prior"].value) == (0, 0.5)


def test_a_missed_one_decides_nothing_and_is_merged_where_another_stands(world):
    cells, known = cells_and_knowledge(world, "mask")
    disc = known[0].objects["blue disc"][0][0]
    row = measure_sighting(cells[0], Known({"blue disc": [(disc, 0.9)]}).sight(cells[0].scene), "x")
    assert (row["missed"], row["right"], row["front"], row["blend"]) == (0.5, 0, None, None)
    both = disc | known[0].objects["gem"][0][0]
    row = measure_sighting(cells[0], Known({"blue disc": [(both, 0.9)]}).sight(cells[0].scene), "x")
    assert (row["missed"], row["merged"]) == (0.5, 0.5)


def test_a_second_one_is_a_double(world):
    cells, known = cells_and_knowledge(world, "box")
    known[0].objects["blue disc"].append((bitmap(0, 0, 0.2, 0.2), 0.5))
    assert measure_sighting(cells[0], known[0].sight(cells[0].scene), "x")["doubled"] == 1


def test_a_direction_is_the_side_of_the_head(world):
    cells, _ = cells_and_knowledge(world, "box")
    told = (
        Instance("A full view of a donkey", box=Box(0.2, 0.3, 0.8, 0.7)),
        Instance("The head of the donkey", box=Box(0.2, 0.3, 0.4, 0.5)),
    )
    scene = Scene("a donkey", told, SIDE, SIDE)
    truth = truth_of_scene(scene, ())
    asked = dataclasses.replace(truth.instances[0], facing="left")
    truth = dataclasses.replace(truth, instances=(asked, truth.instances[1]))
    cell = dataclasses.replace(cells[0], scene=scene, truth=truth, pair=None, front=None, targets=(0,))
    body = [(bitmap(0.2, 0.3, 0.8, 0.7), 0.9)]
    for place, right in (((0.2, 0.3, 0.4, 0.5), 1), ((0.6, 0.3, 0.8, 0.5), 0)):
        seen = Known({"donkey": body, "head of the donkey": [(bitmap(*place), 0.8)]}).sight(scene)
        assert measure_sighting(cell, seen, "x")["facing"] == right


def test_parts_count_for_the_whole_where_no_order_is_told(world):
    """Test 0 tells masks of a dog and of its paws: what the paws own is the dog's, too."""
    cells, _ = cells_and_knowledge(world, "box")
    dog, paw = bitmap(0.1, 0.1, 0.8, 0.8), bitmap(0.1, 0.1, 0.5, 0.5)
    told = tuple(Instance(name, mask=Mask.from_array(one)) for name, one in (("a dog", dog), ("a paw", paw)))
    scene = Scene("a dog", told, SIDE, SIDE)
    cell = dataclasses.replace(
        cells[0], scene=scene, truth=truth_of_scene(scene, ()), pair=None, front=None, targets=(0,)
    )
    known = Known({"dog": [(dog, 0.9)], "paw": [(paw, 0.9)]})
    assert measure_sighting(cell, known.sight(scene), "x")["visible_iou"] == 1
