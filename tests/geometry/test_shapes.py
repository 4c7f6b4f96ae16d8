"""Boxes and polygons."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco

from instancediffusion.geometry import (
    box_area,
    box_iou,
    clip_boxes,
    fill_rings,
    mask_box,
    xywh_to_xyxy,
    xyxy_to_xywh,
)

numbers = st.integers(0, 50)
boxes = st.tuples(numbers, numbers, st.integers(1, 50), st.integers(1, 50))


@given(st.lists(boxes, min_size=1, max_size=5), st.lists(boxes, min_size=1, max_size=5))
def test_overlap_agrees_with_the_coco_library(first, second):
    a, b = (np.array(group, dtype=float) for group in (first, second))
    expected = coco.iou(a, b, [0] * len(b))
    np.testing.assert_allclose(box_iou(xywh_to_xyxy(a), xywh_to_xyxy(b)), expected)


@given(boxes)
def test_conversions_undo_each_other(box):
    np.testing.assert_array_equal(xyxy_to_xywh(xywh_to_xyxy(box)), box)


def test_clipping_and_area():
    clipped = clip_boxes([[-5, -5, 5, 5], [10, 10, 90, 20]], width=40, height=15)
    np.testing.assert_array_equal(clipped, [[0, 0, 5, 5], [10, 10, 40, 15]])
    np.testing.assert_array_equal(box_area([[0, 0, 2, 3], [2, 2, 1, 1]]), [6, 0])


def test_box_of_a_mask():
    bitmap = np.zeros((10, 20), dtype=bool)
    bitmap[2:5, 4:10] = True
    assert mask_box(bitmap) == (0.2, 0.2, 0.5, 0.5)
    assert mask_box(np.zeros((3, 3), dtype=bool)) is None


def test_polygons_agree_with_the_coco_library():
    rng = np.random.default_rng(5)
    for _ in range(30):
        angles = np.sort(rng.random(9)) * 2 * np.pi
        ring = 50 + np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(20, 45, size=(9, 1))
        reference = coco.decode(coco.merge(coco.frPyObjects([ring.ravel().tolist()], 100, 110))).astype(bool)
        ours = fill_rings([ring], (100, 110))
        assert (ours & reference).sum() / (ours | reference).sum() > 0.93


@pytest.mark.parametrize("shift", [0.0, -30.0, 60.0])
def test_a_square_covers_its_pixels_and_its_hole_does_not(shift):
    square = np.array([(10, 10), (50, 10), (50, 40), (10, 40)], dtype=float)
    hole = np.array([(20, 20), (30, 20), (30, 30), (20, 30)], dtype=float)
    bitmap = fill_rings([square + np.array((shift, 0)), hole + np.array((shift, 0))], (60, 80))
    expected = np.zeros((60, 200), dtype=bool)
    left = int(60 + 10 + shift)
    expected[10:40, left : left + 40] = True
    expected[20:30, left + 10 : left + 20] = False
    assert (bitmap == expected[:, 60:140]).all()
