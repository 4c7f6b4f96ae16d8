"""The constructors check their arguments, all of them."""

import dataclasses
import math

import numpy as np
import pytest

import instancediffusion
from instancediffusion.errors import SceneError
from instancediffusion.scene import Box, Instance, Mask, Point, Scene, Scribble

PANDA = Instance("a panda", box=Box(0.1, 0.2, 0.5, 0.9))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Box(0.5, 0, 0.5, 1),
        lambda: Box(0, 0.6, 1, 0.5),
        lambda: Box(0, 0, 1.01, 1),
        lambda: Box(-0.01, 0, 1, 1),
        lambda: Box(math.nan, 0, 1, 1),
        lambda: Box(0, 0, math.inf, 1),
        lambda: Box("0", 0, 1, 1),
        lambda: Box(False, 0, 1, 1),
        lambda: Point(2, 0),
        lambda: Point(None, 0),
        lambda: Scribble(()),
        lambda: Scribble(((0.5, 0.5),)),
        lambda: Scribble(((0.5, 0.5), (0.5, 1.5))),
        lambda: Scribble(((0.5, 0.5), (0.5,))),
        lambda: Scribble("ab"),
        lambda: Scribble([[0.1, 0.1]] * 10_001),
        lambda: Mask((4, 4), "0"),
        lambda: Mask((4, 4), "`0"),  # nothing set
        lambda: Mask((4,), "0"),
        lambda: Mask((4, 1e9), "0"),
        lambda: Mask(4, "0"),
        lambda: Mask((4, 4), [0, 16]),
        lambda: Mask.from_array(np.zeros((4, 4))),
        lambda: Mask.from_array(np.zeros(4)),
        lambda: Instance(" ", box=Box(0, 0, 1, 1)),
        lambda: Instance(3, box=Box(0, 0, 1, 1)),
        lambda: Instance("a", box=(0, 0, 1, 1)),
        lambda: Instance("a"),
        lambda: Instance("a", point=Point(0, 0), z_order=1.5),
        lambda: Instance("a", point=Point(0, 0), z_order=True),
        lambda: Instance("\ud800", point=Point(0, 0)),
        lambda: Scene("", (), 512, 512),
        lambda: Scene("a", (), 15, 512),
        lambda: Scene("a", (), 512, 8193),
        lambda: Scene("a", (), 512.5, 512),
        lambda: Scene("a", (), "512", 512),
        lambda: Scene("a", "b", 512, 512),
        lambda: Scene("a", ("b",), 512, 512),
        lambda: Scene("a", (PANDA,) * 1001, 512, 512),
        lambda: Scene("a", (), 512, 512, negative_prompt=7),
        lambda: Scene("a", (Instance("b", mask=Mask.from_array(np.ones((20, 30)))),), 20, 30),
    ],
)
def test_bad_arguments_are_refused(make):
    with pytest.raises(SceneError) as caught:
        make()
    assert all(problem.path.startswith("$") and problem.message and problem.fix for problem in caught.value.problems)


def test_every_fault_is_named_at_once():
    with pytest.raises(SceneError) as caught:
        Scene("", ("x", PANDA, None), 5, math.nan, negative_prompt=1)
    paths = [problem.path for problem in caught.value.problems]
    assert paths == ["$.prompt", "$.negative_prompt", "$.width", "$.height", "$.instances[0]", "$.instances[2]"]


def test_values_are_normal_and_frozen():
    scene = Scene("p", [PANDA], 512.0, np.int64(512))
    assert isinstance(scene.instances, tuple)
    assert (type(scene.width), type(scene.height)) == (int, int)
    assert type(Box(np.float32(0), 0, 1, 1).x0) is float
    assert Scribble(np.array([[0, 0], [1, 1]])) == Scribble(((0.0, 0.0), (1.0, 1.0)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        scene.prompt = "q"
    assert hash(scene) == hash(Scene("p", (PANDA,), 512, 512))


def test_kinds_are_listed_in_one_order():
    every = Instance("a", mask=Mask.from_array(np.ones((2, 2))), scribble=Scribble(((0, 0), (1, 1))),
                     point=Point(0, 0), box=Box(0, 0, 1, 1))  # fmt: skip
    assert every.kinds == ("box", "point", "scribble", "mask")
    assert dataclasses.replace(every, point=None, box=None).kinds == ("scribble", "mask")


def test_a_mask_keeps_its_pixels():
    bitmap = np.arange(35).reshape(5, 7) % 3 == 0
    mask = Mask.from_array(bitmap)
    assert (mask.array == bitmap).all()
    assert mask.area == bitmap.sum()
    assert mask.size == (5, 7)


def test_public_names():
    assert instancediffusion.Scene is Scene
    assert instancediffusion.load_scene("examples/panda_balloons.json").instances[0].caption == "a panda"
