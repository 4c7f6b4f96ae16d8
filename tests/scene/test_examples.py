"""The scenes that come with the project."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from instancediffusion.scene import load_scene, scene_text

EXAMPLES = sorted(Path("examples").glob("*.json"))


def test_there_are_enough():
    names = {path.stem for path in EXAMPLES}
    assert {
        "panda_balloons",
        "cat_dog_robin",
        "rose_garden_painting",
        *(f"iterative_r{n}" for n in range(1, 6)),
    } <= names
    assert len([name for name in names if name.startswith("test")]) == 21


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_loads_without_a_warning_and_is_written_alike(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scene = load_scene(path)
    assert json.loads(scene_text(scene)) == json.loads(path.read_text())


def test_all_four_kinds_and_an_order_are_shown():
    scene = load_scene("examples/panda_balloons.json")
    assert [instance.kinds for instance in scene.instances] == [("box",), ("point",), ("scribble",), ("mask",)]
    assert [instance.z_order for instance in scene.instances] == [1, None, 2, None]
    assert 0.1 < scene.instances[3].mask.array.mean() < 0.5


def test_scenes_need_no_torch():
    code = "import sys, instancediffusion.scene, instancediffusion.rendering; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
