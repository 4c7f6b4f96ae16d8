"""Mask points: the published ones number for number, ours by the laws they follow."""

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from instancediffusion.geometry import mask_box, mask_points, resample_scribble, scribble_from_mask

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "mask_points.npz")
bitmaps = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=30)).filter(np.any)


@pytest.mark.parametrize("index", range(3))
def test_published_points_are_reproduced(index):
    bitmap = np.unpackbits(GOLDEN["masks_packed"][index], axis=-1).astype(bool)
    points = mask_points(bitmap, np.random.default_rng(0), published=True)
    np.testing.assert_array_equal(points * 512, GOLDEN["points_pixels"][index])


@pytest.mark.parametrize("name", ["long", "short"])
def test_published_resampling_of_a_scribble_is_reproduced(name):
    np.testing.assert_array_equal(resample_scribble(GOLDEN[f"{name}_in"], published=True), GOLDEN[f"{name}_out"])


def test_published_points_of_a_rectangle_are_shifted_and_ours_are_not():
    bitmap = np.zeros((64, 64), dtype=bool)
    bitmap[10:20, 30:50] = True
    for published, low, high in ((True, (30, 10), (51, 21)), (False, (30, 10), (50, 20))):
        points = mask_points(bitmap, np.random.default_rng(0), published=published) * 64
        assert tuple(points.min(axis=0)) == low
        assert tuple(points.max(axis=0)) == high


@given(bitmaps)
def test_points_lie_in_the_box_in_order_of_distance(bitmap):
    points = mask_points(bitmap, np.random.default_rng(0), published=False)
    x0, y0, x1, y1 = mask_box(bitmap)
    assert points.shape == (256, 2)
    assert (points >= np.array([x0, y0]) - 1e-12).all()
    assert (points <= np.array([x1, y1]) + 1e-12).all()
    distance = np.hypot(*points.T)
    assert (np.diff(distance) >= -1e-12).all()


@given(bitmaps)
def test_the_box_of_the_points_is_the_box_of_the_mask_where_all_vertices_are_taken(bitmap):
    """Few vertices: the even choice of 128 takes each of them."""
    if (np.diff(np.pad(bitmap, 1).astype(int), axis=0) != 0).sum() + (
        np.diff(np.pad(bitmap, 1).astype(int), axis=1) != 0
    ).sum() > 60:
        return
    points = mask_points(bitmap, np.random.default_rng(0), published=False)
    box = (*points.min(axis=0), *points.max(axis=0))
    assert box == pytest.approx(mask_box(bitmap))


def test_only_small_masks_draw_random_points():
    large, small = np.ones((20, 20), dtype=bool), np.ones((5, 5), dtype=bool)
    for bitmap, alike in ((large, True), (small, False)):
        first, second, again = (mask_points(bitmap, np.random.default_rng(s), published=False) for s in (1, 2, 1))
        assert (first == again).all()
        assert (first == second).all() == alike


def test_an_empty_mask_has_zero_points():
    for published in (True, False):
        assert not mask_points(np.zeros((8, 8), dtype=bool), np.random.default_rng(0), published=published).any()
    assert not scribble_from_mask(np.zeros((8, 8), dtype=bool), np.random.default_rng(0)).any()


def test_scribble_from_a_mask_lies_on_it_in_order():
    rows, columns = np.mgrid[:40, :60]
    bitmap = (rows - 20) ** 2 + (columns - 33) ** 2 < 81
    points = scribble_from_mask(bitmap, np.random.default_rng(3))
    pixels = points * (60, 40)
    assert bitmap[np.floor(pixels[:, 1]).astype(int), np.floor(pixels[:, 0]).astype(int)].all()
    assert len(np.unique(points, axis=0)) == 20
    assert (np.diff(np.hypot(*points.T)) >= 0).all()


def test_a_stroke_is_walked_at_even_steps():
    line = resample_scribble([(0.0, 0.0), (1.0, 0.0)], 5)
    np.testing.assert_allclose(line, [(0, 0), (0.25, 0), (0.5, 0), (0.75, 0), (1, 0)])
    assert (resample_scribble([(0.3, 0.4)] * 3) == (0.3, 0.4)).all()


def test_fast_enough_for_training():
    rows, columns = np.mgrid[:128, :128]
    bitmap = (rows - 60) ** 2 + (columns - 66) ** 2 < 2500
    rng = np.random.default_rng(0)
    mask_points(bitmap, rng, published=False)
    began = time.process_time()
    for _ in range(20):
        mask_points(bitmap, rng, published=False)
    assert (time.process_time() - began) / 20 < 0.015  # 3 ms on a free core; slack for a busy one
