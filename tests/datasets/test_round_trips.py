"""Every format: what is written comes back as what the format holds, and what it cannot hold is told."""

import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.scene.strategies import alike, captions, masks, scenes

from instancediffusion.datasets import FORMATS, LazyDataset, open_dataset, write_dataset
from instancediffusion.datasets.example import Example
from instancediffusion.errors import SceneError
from instancediffusion.geometry import fill_rings, mask_ring
from instancediffusion.scene import Box, Instance, Point, Scene, Scribble


def dataset_of(examples, categories=None):
    return LazyDataset("memory", examples, lambda _, example: example, categories)


@st.composite
def examples(draw):
    scene = draw(scenes())
    height, width, count = scene.height, scene.width, len(scene.instances)
    pixels = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 255, (height, width, 3), dtype=np.uint8)
    names = tuple(draw(st.lists(captions, min_size=count, max_size=count))) if draw(st.booleans()) else ()
    visible = tuple(draw(st.none() | masks(height, width)) for _ in range(count)) if draw(st.booleans()) else ()
    return Example(scene, pixels, draw(st.sampled_from(["a.png", " c d.png", "ü.png"])), 1, names, visible)


@pytest.mark.parametrize("name", list(FORMATS))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(examples(), min_size=1, max_size=3))
def test_what_is_written_comes_back(name, tmp_path_factory, given_examples):
    folder = tmp_path_factory.mktemp("set")
    given_examples = [replace(e, file_name=f"{n}{e.file_name}") for n, e in enumerate(given_examples)]
    lost = Counter()
    expected = [kept for example in given_examples if (kept := FORMATS[name].hold(example, lost)) is not None]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            written = write_dataset(dataset_of(given_examples), folder, name)
        except SceneError:
            assert not expected
            return
        read = open_dataset(folder)
        found = sorted((read[index] for index in range(len(read))), key=lambda example: example.file_name)
    assert written.pictures == len(expected) == len(found) and written.lost == lost
    assert bool(lost) == any("cannot hold" in str(warning.message) for warning in told)
    for got, want in zip(found, expected, strict=True):
        assert alike(got.scene, want.scene, 1e-9), (got.scene, want.scene)
        assert got.categories == want.categories or name == "native"
        assert got.visible == (want.visible if any(want.visible) else ())
        np.testing.assert_array_equal(got.pixels(), want.pixels())


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "native"])
def test_names_that_are_declared_are_written_as_those_that_are_used(name, tmp_path):
    """CVAT's labels with a control character were no XML; in YOLO "a  b" became a class of its own beside "a b"."""
    odd = ("\x08", "a  b", "line\nbreak")
    boxes = tuple(Instance(caption, box=Box(0.1, 0.1, 0.5, 0.5)) for caption in odd)
    example = Example(Scene("pets", boxes, width=32, height=32), np.zeros((32, 32, 3), np.uint8), "a.png", 1, odd)
    write_dataset(dataset_of([example], dict(enumerate(odd, 1))), tmp_path / name, name)
    read = open_dataset(tmp_path / name)
    assert read[0].categories == FORMATS[name].hold(example, Counter()).categories
    assert set(read.categories.values()) <= set(read[0].categories)


@pytest.mark.parametrize("name", list(FORMATS))
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(examples())
def test_every_format_goes_over_into_every_other(name, tmp_path_factory, given_example):
    """What was read from one format, written in another and read again is what that one holds of it."""
    folder = tmp_path_factory.mktemp("sets")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            write_dataset(dataset_of([given_example]), folder / "first", name)
        except SceneError:
            return  # nothing of it can be held
        first = open_dataset(folder / "first")
        for other in FORMATS:
            want = FORMATS[other].hold(first[0], Counter())
            if want is None:
                continue
            write_dataset(first, folder / other, other)
            (got,) = list(open_dataset(folder / other))
            assert alike(got.scene, want.scene, 1e-9), (name, other, got.scene, want.scene)
            assert got.categories == want.categories or other == "native" or name == "native", (name, other)
            assert got.visible == (want.visible if any(want.visible) else ()), (name, other)
            np.testing.assert_array_equal(got.pixels(), given_example.pixels())


@given(st.integers(1, 24).flatmap(lambda h: st.integers(1, 24).flatmap(lambda w: masks(h, w))))
def test_a_mask_is_one_ring_whatever_its_parts_and_holes(mask):
    bitmap = mask.array
    np.testing.assert_array_equal(fill_rings([mask_ring(bitmap)], bitmap.shape), bitmap)


@pytest.mark.parametrize("name", [name for name in FORMATS if "point" in FORMATS[name].holds])
def test_places_on_the_far_edge_stay_there(name, tmp_path):
    """100 percent of 28 pixels, computed as 100 * .28, is 28.000000000000004: once outside, and the object was lost."""
    corner = Instance("a cat", point=Point(1.0, 1.0))
    stroke = Instance("a dog", scribble=Scribble(np.ones((3, 2))))
    for side in (28, 29, 57, 58):
        scene = Scene("pets", (corner, stroke), width=side, height=side)
        example = Example(scene, np.zeros((side, side, 3), np.uint8), "a.png", 1, (), ())
        kept = FORMATS[name].hold(example, Counter())
        write_dataset(dataset_of([example]), tmp_path / str(side), name)
        assert alike(open_dataset(tmp_path / str(side))[0].scene, kept.scene, 1e-9)
