"""Specs say what is wrong with them; scenes keep every bound of their spec and depend on their number alone."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from instancediffusion.errors import SettingsError
from instancediffusion.geometry import mask_box
from instancediffusion.synthesis import ClassSpec, DatasetSpec, NoRoomError, SceneSampler, read_spec

SPEC = """
pictures = 20
size = [96, 64]
instances = [2, 4]
backgrounds = ["on a beach"]
order = "bottom"
[[classes]]
name = "dog"
captions = ["a {colour} {name}"]
attributes = {colour = ["red", "blue"]}
count = [1, 2]
size = [0.2, 0.4]
[[classes]]
name = "cat"
[filter]
box_iou = 0.6
"""


def test_toml_and_json_are_the_same_spec(tmp_path):
    (tmp_path / "a.toml").write_text(SPEC)
    spec = read_spec(tmp_path / "a.toml")
    assert spec.classes[0].count == (1, 2) and spec.filter.box_iou == 0.6
    (tmp_path / "a.json").write_text(json.dumps(spec.to_dict()))
    assert read_spec(tmp_path / "a.json") == spec
    assert SceneSampler(spec).scene(3).scene.prompt.endswith(", on a beach")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("pictures = 20", "pictures = 0"), r"a\.toml: pictures = 0: write 1"),
        (("pictures = 20", "picturs = 20"), r"a\.toml: unknown setting 'picturs'; did you mean 'pictures'"),
        (("pictures = 20\n", ""), r"a\.toml: .*pictures"),
        (("count = [1, 2]", "count = [3, 2]"), r"a\.toml: classes\[0\]: count = \[3, 2\]: write \[least, most\]"),
        (("count = [1, 2]", "count = [0, 0]"), r"classes\[0\]: count = \[0, 0\]: the class is never chosen"),
        (("{colour} {name}", "{color} {name}"), r"classes\[0\]: captions\[0\] = .*\{color\} is none of"),
        (("{colour} {name}", "{name"), r"classes\[0\]: captions\[0\] = .*write \{\{"),
        (("{colour} {name}", "{name.real}"), r"classes\[0\]: captions\[0\]"),
        (('name = "cat"', 'name = "dog"'), r"classes: 'dog' is there twice"),
        (('name = "cat"', "name = 3"), r"classes\[1\]: name = 3: expected str"),
        (('name = "cat"', 'name = " "'), r"classes\[1\]: name = ' ': write"),
        (("size = [0.2, 0.4]", "size = [0.2, nan]"), r"classes\[0\]: size = \[0.2, nan\]"),
        (("instances = [2, 4]", "instances = [6, 9]"), r"instances = \[6, 9\]: the counts of the classes allow 1 to 5"),
        (('order = "bottom"', 'order = "left"'), r"order = 'left': write one of random"),
        (("box_iou = 0.6", "box_iou = 60"), r"a\.toml: filter: box_iou = 60: write a fraction"),
        (("size = [96, 64]", "size = [96]"), r"size = \[96\]: write \[width, height\]"),
        (("pictures = 20", "pictures ="), r"a\.toml: not a TOML file"),
    ],
)
def test_faults_name_item_field_and_fix(tmp_path, change, told):
    assert change[0] in SPEC
    (tmp_path / "a.toml").write_text(SPEC.replace(*change, 1))
    with pytest.raises(SettingsError, match=told):
        read_spec(tmp_path / "a.toml")


def test_files_that_are_no_spec_are_refused(tmp_path):
    for name, content in (("a.json", b"[1]"), ("b.json", b"[" * 100_000), ("c.toml", b"\xff\xfe"), ("d.json", b"{}")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SettingsError, match=name):
            read_spec(tmp_path / name)
    with pytest.raises(SettingsError, match=r"gone\.toml"):
        read_spec(tmp_path / "gone.toml")


def covered(boxes, sides):
    """Pixel bitmaps of boxes, painted independently of the code under test."""
    found = []
    for x0, y0, x1, y1 in np.rint(np.array(boxes) * (sides * 2)).astype(int):
        bitmap = np.zeros(sides[::-1], bool)
        bitmap[y0:y1, x0:x1] = True
        found.append(bitmap)
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    number=st.integers(0, 10**6),
    seed=st.integers(0, 1000),
    share=st.sampled_from([0.0, 1.0]),
    order=st.sampled_from(["random", "bottom", "listed", "none"]),
    wide=st.booleans(),
)
def test_scenes_keep_the_bounds_of_their_spec(number, seed, share, order, wide):
    classes = (
        ClassSpec("dog", count=(1, 2), size=(0.15, 0.35), place=(0.0, 0.25, 1.0, 1.0)),
        ClassSpec("cat", count=(0, 3), size=(0.1, 0.3), aspect=(0.5, 1.0), weight=3.0),
    )
    sides = (128, 96) if wide else (96, 128)
    spec = DatasetSpec(
        5, classes, seed, sides, (2, 4), overlap_share=share, overlap=(0.1, 0.6), order=order, min_visible=0.4
    )
    drawn = SceneSampler(spec).scene(number)
    assert drawn == SceneSampler(dataclasses.replace(spec, pictures=9)).scene(number)
    scene, names = drawn.scene, drawn.categories
    assert 2 <= len(names) <= 4 and 1 <= names.count("dog") <= 2 and names.count("cat") <= 3
    assert [one.caption for one in scene.instances] == [f"a {name}" for name in names]
    boxes = [one.box.xyxy for one in scene.instances]
    pixels = covered(boxes, sides)
    pixel = 1.01 / min(sides)
    for name, (x0, y0, x1, y1), region in zip(names, boxes, pixels, strict=True):
        low, high = {"dog": (0.15, 0.35), "cat": (0.1, 0.3)}[name]
        assert (low - 2 * pixel) ** 2 <= region.sum() / region.size <= (high + 2 * pixel) ** 2
        assert name == "cat" or y0 >= 0.25 - pixel
        if name == "cat":
            across, down = (x1 - x0) * sides[0], (y1 - y0) * sides[1]
            assert (across - 1) / (down + 1) <= 1.0 and (across + 1) / (down - 1) >= 0.5
    pairs = [(i, j) for i in range(len(names)) for j in range(i)]
    shares = [(pixels[i] & pixels[j]).sum() / min(pixels[i].sum(), pixels[j].sum()) for i, j in pairs]
    assert max(shares) <= 0.6 + 1e-9
    assert max(shares) >= 0.1 - 1e-9 if share else max(shares) == 0
    layers = [one.z_order for one in scene.instances]
    if order == "none":
        assert layers == [None] * len(names)
        return
    assert sorted(layers) == list(range(len(names)))
    for i, own in enumerate(pixels):
        before = [pixels[j] for j in range(len(names)) if layers[j] > layers[i]]
        assert (own & ~np.any([np.zeros_like(own), *before], 0)).sum() >= 0.4 * own.sum() - 1e-9
    by = {"bottom": [box[3] for box in boxes], "listed": [name == "cat" for name in names]}.get(order)
    if by is not None:
        assert all(by[i] <= by[j] for i in range(len(names)) for j in range(len(names)) if layers[i] < layers[j])


def test_weights_and_overlaps_come_as_often_as_told():
    classes = (ClassSpec("dog", weight=1.0, size=(0.1, 0.2)), ClassSpec("cat", weight=3.0, size=(0.1, 0.2)))
    spec = DatasetSpec(400, classes, instances=(2, 2), overlap_share=0.25)
    sampler = SceneSampler(spec)
    drawn = [sampler.scene(number) for number in range(400)]
    names = [name for one in drawn for name in one.categories]
    assert 0.7 < names.count("cat") / len(names) < 0.8  # 3/4, sd 0.015
    pixels = [covered([one.box.xyxy for one in scene.scene.instances], (512, 512)) for scene in drawn]
    assert 0.18 < np.mean([(a & b).any() for a, b in pixels]) < 0.33  # 1/4, sd 0.022
    assert len({one.seed for one in drawn}) == 400


def test_what_has_no_room_is_told():
    spec = DatasetSpec(1, (ClassSpec("dog", size=(0.9, 1.0)),), instances=(3, 3), overlap_share=0.0)
    with pytest.raises(NoRoomError, match="no layout of 3 instances, none overlapping"):
        SceneSampler(spec).scene(0)


def test_shapes_become_masks_in_their_box(tmp_path):
    shape = np.zeros((40, 60), np.uint8)
    shape[10:30, 20:50] = 255
    shape[10:20, 20:40] = 0  # an L of 30 x 20
    Image.fromarray(shape).save(tmp_path / "l.png")
    spec = DatasetSpec(1, (ClassSpec("dog", shapes=("l.png",), size=(0.4, 0.5)),), instances=(1, 1), size=(200, 150))
    mask = SceneSampler(spec, tmp_path).scene(0).scene.instances[0].mask.array
    x0, y0, x1, y1 = mask_box(mask)
    assert (x1 - x0) * 200 / ((y1 - y0) * 150) == pytest.approx(1.5, rel=0.05)
    assert mask.sum() / ((x1 - x0) * 200 * (y1 - y0) * 150) == pytest.approx(2 / 3, rel=0.05)
    (tmp_path / "l.png").write_bytes(b"nothing")
    with pytest.raises(SettingsError, match=r"classes\.dog\.shapes\[0\].*l\.png"):
        SceneSampler(spec, tmp_path)
