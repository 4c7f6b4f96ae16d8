"""Run-length codes against the COCO library, and against hostile input."""

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from instancediffusion.geometry import compress_runs, rle_area, rle_decode, rle_encode, rle_runs

bitmaps = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24))


@given(bitmaps)
def test_agrees_with_the_coco_library(bitmap):
    reference = coco.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    counts = rle_encode(bitmap)
    assert counts == reference["counts"].decode()
    assert (rle_decode(counts, bitmap.shape) == bitmap).all()
    assert rle_area(counts, bitmap.shape) == bitmap.sum() == coco.area(reference)


@given(bitmaps)
def test_plain_run_lengths_are_read_too(bitmap):
    runs = rle_runs(rle_encode(bitmap), bitmap.shape)
    assert (rle_decode(runs.tolist(), bitmap.shape) == bitmap).all()
    assert compress_runs(runs) == rle_encode(bitmap)


def test_a_long_code_is_read_in_blocks(rng):
    bitmap = rng.random((1300, 900)) < 0.5
    counts = rle_encode(bitmap)
    assert len(counts) > 2 * (1 << 18)
    assert (rle_decode(counts, bitmap.shape) == bitmap).all()


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ("", "add up to"),
        ("0", "add up to"),
        ("hello world", "."),
        ("P", "middle of a number"),
        ("ooooooooooooo0", "number that no canvas needs"),
        ("\x00", "character"),
        ("é", "character"),
        ("O", "outside"),  # -1
        ([16, -1, 1], "integer"),
        ([8, 9], "more than 16"),
        ([8.0, 8.0], "integer"),
        ([True, 15], "integer"),
        ([0] * 40 + [16], "more runs"),
        ("0" * 1000, "too long"),
    ],
)
def test_damaged_codes_are_refused(counts, reason):
    with pytest.raises(ValueError, match=reason):
        rle_decode(counts, (4, 4))


@given(st.one_of(st.text(max_size=60), st.lists(st.integers(-5, 300), max_size=30)))
def test_any_input_is_decoded_or_refused(counts):
    try:
        bitmap = rle_decode(counts, (9, 7))
    except ValueError:
        return
    assert bitmap.shape == (9, 7)


def test_a_hostile_code_costs_no_more_than_the_canvas():
    bombs = ["oooooo?" * 100, "o" * 5_000_000, [2**62], [16, 10**300], "0" * 5_000_000]
    for bomb in bombs:
        tracemalloc.start()
        began = time.perf_counter()
        with pytest.raises(ValueError, match=r"run|string|add up|integer"):
            rle_decode(bomb, (16, 16))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert time.perf_counter() - began < 0.5
        assert peak < 1_000_000


@pytest.fixture
def rng():
    return np.random.default_rng(7)
