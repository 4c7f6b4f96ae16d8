"""The laws between the models: which boxes stay, what of a mask counts, what of the depth order is known."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instancediffusion.annotation import Detection, layers, order_by_depth, order_by_visibility
from instancediffusion.annotation.selection import clean_tags, fitted_mask, instance_caption, kept_detections
from instancediffusion.scene import Mask

SIZE = (100, 80)


def kept(detections, **changed):
    limits = {"score": 0.25, "same_tag_iou": 0.5, "any_tag_iou": 0.9, "limit": 100} | changed
    return kept_detections(detections, SIZE, **limits)


def square(x0, y0, x1, y1, size=SIZE):
    array = np.zeros((size[1], size[0]), bool)
    array[y0:y1, x0:x1] = True
    return array


def test_the_rider_stays_on_the_horse():
    rider, horse = Detection("person", 0.6, (20, 10, 60, 60)), Detection("horse", 0.8, (20, 20, 60, 70))  # IoU 2/3
    assert {one.tag for one in kept([rider, horse])} == {"person", "horse"}
    again = Detection("horse", 0.5, (22, 20, 60, 70))
    assert [one.score for one in kept([again, horse])] == [0.8]
    pony = Detection("pony", 0.9, (20, 20, 60, 70))  # another name of the same thing
    assert [one.tag for one in kept([horse, pony])] == ["pony"]


def test_boxes_end_at_the_picture_and_nonsense_is_no_object():
    outside, nan = Detection("cat", 0.9, (120, 0, 140, 20)), Detection("cat", 0.9, (0, 0, float("nan"), 9))
    flat, weak = Detection("cat", 0.9, (5, 5, 30, 5)), Detection("cat", 0.2, (5, 5, 30, 40))
    cut = Detection("cat", 0.9, (-10, 60, 50, 200))
    assert kept([outside, nan, flat, weak, cut]) == [Detection("cat", 0.9, (0, 60, 50, 80))]
    many = [Detection("cat", 0.3 + n / 100, (10 * n, 0, 10 * n + 9, 9)) for n in range(9)]
    assert [one.score for one in kept(many, limit=2)] == pytest.approx([0.38, 0.37])


def test_a_mask_ends_near_its_box_and_is_dropped_where_they_disagree():
    box, good = (20.0, 20.0, 60.0, 60.0), square(22, 20, 60, 58)
    leaking = good | square(90, 0, 100, 10)
    found = fitted_mask(Mask.from_array(leaking), box, leak=0.1, agreement=0.5)
    assert found is not None and (found.array == good).all()
    elsewhere = Mask.from_array(square(20, 20, 30, 30))
    assert fitted_mask(elsewhere, box, leak=0.1, agreement=0.5) is None
    assert fitted_mask(Mask.from_array(square(90, 0, 100, 10)), box, leak=0.1, agreement=0.0) is None


def test_tags_and_captions_are_words():
    assert clean_tags(["Coffee coffee Cup cup", "coffee cup.", " ", "dog (big)", "a\nb"]) == (
        "coffee cup",
        "dog big",
        "a b",
    )
    assert instance_caption("cat", "a black cat") == instance_caption("cat", "  a black\ncat ") == "a black cat"
    assert instance_caption("cat", "cattle on a meadow") == "cat. cattle on a meadow"
    assert instance_caption("traffic light", "two traffic lights") == "two traffic lights"
    assert instance_caption("traffic light", "light traffic") == "traffic light. light traffic"
    assert instance_caption("cat", " ") == "cat"


def depth_case(difference):
    """Two objects that overlap, the first nearer by a share of the picture's range."""
    first, second = square(10, 10, 50, 50), square(30, 30, 90, 70) & ~square(10, 10, 50, 50)
    nearness = np.tile(np.linspace(0, 1, SIZE[0], dtype=np.float32), (SIZE[1], 1))
    nearness[first], nearness[second] = 0.5 + difference, 0.5
    return [(10, 10, 50, 50), (30, 30, 90, 70)], [first, second], nearness


@pytest.mark.parametrize("scale, shift", [(1, 0), (250, -7)])
def test_depth_tells_an_order_beyond_the_margin_whatever_its_scale(scale, shift):
    for difference, wanted in ((0.3, 1), (-0.3, -1), (0.01, 0), (0.0, 0)):
        boxes, masks, nearness = depth_case(difference)
        assert order_by_depth(boxes, masks, nearness * scale + shift, 0.05) == {(0, 1): wanted}
    flat = np.full((SIZE[1], SIZE[0]), 3, np.float32)
    assert order_by_depth(boxes, masks, flat, 0.0) == {(0, 1): 0}


def test_depth_is_compared_where_two_objects_meet():
    """A long table whose far end lies behind a cup, though most of it is nearer than the cup."""
    table, cup = square(0, 20, 100, 60), square(80, 10, 95, 40)
    nearness = np.tile(np.linspace(1, 0, SIZE[0], dtype=np.float32), (SIZE[1], 1))
    nearness[cup] = 0.4
    boxes = [(0, 20, 100, 60), (80, 10, 95, 40)]
    assert order_by_depth(boxes, [table & ~cup, cup], nearness, 0.05) == {(0, 1): -1}
    assert order_by_depth(boxes, [table, cup], nearness, 0.05) == {(0, 1): -1}  # a mask that covers both
    assert order_by_depth(boxes, [None, cup], nearness, 0.05) == {(0, 1): 0}
    assert order_by_depth([(0, 0, 50, 80), (50, 0, 100, 80)], [table, cup], nearness, 0.0) == {}


def test_amodal_masks_tell_who_is_in_front():
    front, back = square(10, 10, 50, 50), square(30, 30, 90, 70)
    boxes = [(30, 30, 90, 70), (10, 10, 50, 50)]
    assert order_by_visibility(boxes, [back, front], [back & ~front, front], 0.2) == {(0, 1): -1}
    assert order_by_visibility(boxes, [back, front], [back, front], 0.2) == {(0, 1): 0}
    assert order_by_visibility(boxes, [back, None], [back, front], 0.2) == {(0, 1): 0}


def test_circles_and_doubts_lose_their_numbers_and_the_rest_keeps_them():
    assert layers(3, {}) == [None] * 3
    assert layers(4, {(0, 1): 1, (1, 2): 1}) == [2, 1, 0, None]
    assert layers(3, {(0, 1): 1, (0, 2): 0, (1, 2): 0}) == [1, 0, None]
    circle = layers(3, {(0, 1): 1, (1, 2): 1, (0, 2): -1})
    assert sorted(layer for layer in circle if layer is not None) == [0, 1]


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 7).flatmap(lambda n: st.tuples(st.just(n), st.dictionaries(
    st.sampled_from(list(itertools.combinations(range(n), 2))), st.sampled_from([-1, 0, 1])))))  # fmt: skip
def test_layers_never_state_what_is_not_known(case):
    count, relations = case
    found = layers(count, relations)
    for (i, j), relation in relations.items():
        first, second = found[i], found[j]
        if first is not None and second is not None:
            assert np.sign(first - second) == relation != 0
    if all(relations.values()) and relations:  # a known order of some pair is never lost altogether
        assert any(layer is not None for layer in found)
