"""A kind of location of one's own is one class, registered: it is read, written, given to the network, and drawn."""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator, ValidationError

from instancediffusion import Box, Instance, Mask, Scene, load_scene, save_scene
from instancediffusion.cli import cli
from instancediffusion.conditioning import locations_from_scenes
from instancediffusion.datasets import Example
from instancediffusion.datasets.holding import EVERYTHING, held
from instancediffusion.errors import SceneError
from instancediffusion.pipeline.framing import framed
from instancediffusion.pipeline.merging import extent
from instancediffusion.rendering import render_overlay
from instancediffusion.scene import (
    KINDS,
    LOCATIONS,
    CocoScene,
    Location,
    json_schema,
    register_location,
    resize_scene,
    write_coco,
)
from instancediffusion.scene.checks import check_numbers

SIDES = {"width": 96, "height": 64}
DATA = {"version": 1, "prompt": "one", **SIDES, "instances": [{"caption": "a ball", "ellipse": [48, 32, 24, 8]}]}


@dataclass(frozen=True)
class Ellipse(Location):
    """Centre and half axes, in fractions."""

    kind = "ellipse"

    x: float
    y: float
    rx: float
    ry: float

    @classmethod
    def read(cls, report, path, value, canvas, folder=None):
        numbers = check_numbers(report, path, value, 4, "[x, y, rx, ry] in pixels")
        if numbers is None or canvas is None:
            return None
        if min(numbers[2:]) <= 0:
            report.error(path, "has no area", "give it two half axes")
            return None
        return cls(*(number / side for number, side in zip(numbers, (canvas.width, canvas.height) * 2, strict=True)))

    def write(self, canvas):
        return [self.x * canvas.width, self.y * canvas.height, self.rx * canvas.width, self.ry * canvas.height]

    @classmethod
    def schema(cls):
        return {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}

    def given(self, size):
        height, width = size
        y, x = (np.arange(height)[:, None] + 0.5) / height, (np.arange(width) + 0.5) / width
        inside = ((x - self.x) / self.rx) ** 2 + ((y - self.y) / self.ry) ** 2 <= 1
        box = Box(self.x - self.rx, self.y - self.ry, self.x + self.rx, self.y + self.ry)
        return {"box": box, "mask": Mask.from_array(inside)}


@pytest.fixture
def ellipse():
    register_location(Ellipse)
    yield Scene.from_dict(DATA)
    LOCATIONS.pop("ellipse")


def test_it_is_read_and_written(ellipse, tmp_path):
    (ball,) = ellipse.instances
    assert ball.others == (Ellipse(0.5, 0.5, 0.25, 0.125),) and ball.kinds == ("box", "mask")
    assert ellipse.to_dict() == DATA and Scene.from_dict(ellipse.to_dict()) == ellipse
    save_scene(ellipse, tmp_path / "one.json")
    assert load_scene(tmp_path / "one.json") == ellipse
    result = CliRunner().invoke(cli, ["scene", "validate", str(tmp_path / "one.json")], catch_exceptions=False)
    assert result.exit_code == 0
    assert Scene("one", [Instance("a ball", others=ball.others)], **SIDES) == ellipse
    Draft202012Validator(json_schema()).validate(DATA)
    with pytest.raises(SceneError, match=r"instances\[0\]\.ellipse: has no area"):
        Scene.from_dict({**DATA, "instances": [{"caption": "a ball", "ellipse": [48, 32, 0, 8]}]})


def test_what_is_stated_beside_it_stays(ellipse):
    beside = {"caption": "a ball", "ellipse": [48, 32, 24, 8], "box": [0, 0, 48, 32], "point": [40, 30]}
    data = {**DATA, "instances": [beside]}
    scene = Scene.from_dict(data)
    assert scene.instances[0].box == Box(0, 0, 0.5, 0.5) and scene.instances[0].kinds == ("box", "point", "mask")
    assert scene.to_dict() == data


def test_it_follows_the_canvas_and_other_formats(ellipse):
    larger = resize_scene(ellipse, width=192, height=128)
    assert larger.instances[0].mask == ellipse.instances[0].others[0].given((128, 192))["mask"]
    assert larger.to_dict()["instances"] == [{"caption": "a ball", "ellipse": [96, 64, 48, 16]}]
    plain = ellipse.in_network_kinds()
    assert set(plain.to_dict()["instances"][0]) == {"caption", "box", "mask"}
    written = [write_coco([CocoScene(1, "one", scene)])[0]["annotations"] for scene in (ellipse, plain)]
    assert written[0] == written[1] and written[0][0]["bbox"] == [24, 24, 48, 16]
    example = Example(ellipse, None, "one")
    assert held(example, EVERYTHING, lost := Counter()).scene == ellipse and not lost
    assert held(example, EVERYTHING - {"mask", "several"}, lost).scene.instances[0].others == ()


def test_it_has_an_extent_is_cut_and_drawn(ellipse):
    (ball,), (plain,) = ellipse.instances, ellipse.in_network_kinds().instances
    assert extent(ball) == (0.25, 0.375, 0.75, 0.625)
    frame = (0.25, 0.25, 1.0, 1.0)
    assert framed(ball, frame) == framed(plain, frame)
    pictures = [render_overlay(scene, (64, 96), legend=False) for scene in (ellipse, ellipse.in_network_kinds())]
    assert np.array_equal(*pictures)
    drawn = []

    class Own(Ellipse):
        def draw(self, brush, colour, paper, size):
            drawn.append(size)

    register_location(Own)
    own = Scene("one", [Instance("a ball", others=(Own(0.5, 0.5, 0.25, 0.125),))], **SIDES)
    render_overlay(own, (128, 192), legend=False)
    assert drawn == [(192, 128)]


def test_the_network_is_given_what_it_is(ellipse, pipe):
    for found, expected in zip(
        *(
            vars(locations_from_scenes([one], segmentation_size=32)).values()
            for one in (ellipse, ellipse.in_network_kinds())
        ),
        strict=True,
    ):
        pairs = zip(found.values(), expected.values(), strict=True) if isinstance(found, dict) else [(found, expected)]
        assert all(bool((a == b).all()) for a, b in pairs)
    options = {"seed": 0, "num_inference_steps": 3, "output_type": "latent", "mis_merge": "layered"}
    drawn = pipe(ellipse, mis_fraction=0.5, **options).latents
    assert bool((drawn == pipe(ellipse.in_network_kinds(), mis_fraction=0.5, **options).latents).all())
    moved = replace(ellipse, instances=(Instance("a ball", others=(Ellipse(0.3, 0.5, 0.25, 0.125),)),))
    assert (pipe(moved, mis_fraction=0.5, **options).latents - drawn).abs().max() > 1e-3


def test_what_is_no_kind_is_refused(ellipse):
    class Unknown(Ellipse):
        kind = "unknown"

    ball = Ellipse(0.5, 0.5, 0.25, 0.125)
    for others, says in (
        ((Unknown(0.5, 0.5, 0.2, 0.2),), r"\$\.others\[0\]: is .*, no kind of location; add its kind"),
        ((Box(0, 0, 1, 1),), r"\$\.others\[0\]: is a Box; give it as box="),
        (ball, r"\$\.others: is .*, not a sequence"),
        ((ball, ball), r"\$\.others\[1\]: is a second ellipse"),
    ):
        with pytest.raises(SceneError, match=says):
            Instance("a ball", others=others)

    class Small(Ellipse):
        def given(self, size):
            return {"mask": super().given((16, 16))["mask"]}

    register_location(Small)
    with pytest.raises(SceneError, match=r"mask\.size: is \(16, 16\), but the canvas is .* \(64, 96\)"):
        Scene("one", [Instance("a ball", others=(Small(0.5, 0.5, 0.25, 0.125),))], **SIDES)
    with pytest.raises(ValueError, match="box: is a kind that the network has tokens for"):
        register_location(type("Box", (Ellipse,), {"kind": "box"}))
    assert tuple(LOCATIONS)[:4] == KINDS


def test_without_it_the_file_is_refused():
    assert "ellipse" not in LOCATIONS
    with pytest.raises(SceneError, match="ellipse"):
        Scene.from_dict(DATA)
    with pytest.raises(ValidationError):
        Draft202012Validator(json_schema()).validate(DATA)
