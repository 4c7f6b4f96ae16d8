"""What is dropped on the page: found out, read, bounded."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from instancediffusion import Mask, Scene, load_scene
from instancediffusion.errors import SceneError
from instancediffusion.scene import scene_text
from instancediffusion.scene.notes import png_bytes
from instancediffusion.studio.bounds import Limits, RefusedError
from instancediffusion.studio.examples import Examples, examples_folder
from instancediffusion.studio.intake import decoded, read_file
from instancediffusion.studio.scene_checks import check, instance_of
from tests.tiny_pipeline import disc, scene_of

LIMITS = Limits(min_side_px=16)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def read(content, canvas=(64, 64)):
    return read_file(content, canvas, LIMITS)


@pytest.mark.parametrize("format", ["native", "official"])
def test_scene_files_of_both_formats(format):
    found = read(scene_text(scene_of(4), format=format).encode())
    assert found["kind"] == "scene"
    assert found["format"] == format
    assert Scene.from_dict(found["scene"]) == scene_of(4)


def test_a_generated_picture_carries_its_scene_seed_and_settings():
    notes = {"scene": scene_of(3).to_dict(), "seed": 12, "settings": {"guidance_scale": 2.0}}
    found = read(png_bytes(Image.new("RGB", (8, 8)), notes))
    assert Scene.from_dict(found["scene"]) == scene_of(3)
    assert (found["seed"], found["settings"]) == (12, {"guidance_scale": 2.0})


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA"])
def test_masks_in_every_way_of_saving_black_and_white(mode):
    bitmap = disc(64).array
    image = Image.fromarray(np.where(bitmap, 255, 0).astype(np.uint8)).convert(mode)
    found = read(png(image))
    assert found["kind"] == "mask"
    assert np.array_equal(Mask(tuple(found["mask"]["size"]), found["mask"]["counts"]).array, bitmap)


def test_other_pictures_are_for_reference_and_say_why():
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8))
    assert "two colours" in read(png(noise))["reason"]
    assert "64 x 64" in read(png(Image.new("L", (32, 64))))["reason"]
    buffer = io.BytesIO()
    noise.save(buffer, "JPEG")
    assert read(buffer.getvalue())["kind"] == "reference"


def test_an_empty_mask_is_refused():
    with pytest.raises(RefusedError, match="no pixel"):
        read(png(Image.new("L", (64, 64))))


@pytest.mark.parametrize(
    "data", [None, 3, "", "%%%", "a", "=" * 8, "é" * 8, "a" * (LIMITS.upload_bytes * 2)], ids=lambda d: repr(d)[:12]
)
def test_what_is_no_base64_is_refused(data):
    with pytest.raises(RefusedError):
        decoded(data, LIMITS)


def test_base64_round_trip():
    assert decoded(base64.b64encode(b"hello").decode(), LIMITS) == b"hello"


def test_problems_name_their_instance():
    data = scene_of(3).to_dict()
    data["instances"][2]["scribble"] = [[1, 1]]
    found = check(json.dumps(data), LIMITS)
    assert found.scene is None
    assert [problem["instance"] for problem in found.shown()] == [2]
    assert instance_of("$.annos[12].bbox[0]") == 12
    assert instance_of("$.prompt") is None
    with pytest.raises(SceneError):
        found.settled()


def test_bounds_of_the_studio_are_problems_like_others():
    for scene, path in [
        (scene_of(1, 8192, 64), "$.width"),
        (scene_of(1, 64, 512), "$.width"),
        (Scene("x" * 3000, (), 64, 64), "$.prompt"),
    ]:
        found = check(scene_text(scene), LIMITS)
        assert found.scene is None
        assert path in {problem.path for problem in found.problems}


def test_unknown_words_are_warnings_where_they_stand():
    found = check(scene_text(scene_of(2)), LIMITS, vocabulary={"a", "red", "cat", "some", "things"})
    assert found.scene is not None
    assert [(p["path"], p["severity"]) for p in found.shown()] == [("$.instances[1].caption", "warning")]


def test_examples_are_the_scenes_of_the_package_as_they_are(examples):
    found = Examples()
    assert examples_folder() == examples
    listed = found.listing()
    assert len(listed) >= 30
    assert listed[0]["name"] == "demo"
    for entry in listed:
        scene = found.scene(entry["name"])
        assert scene == load_scene(examples / f"{entry['name']}.json")
        assert (entry["prompt"], entry["instances"]) == (scene.prompt, len(scene.instances))
        assert check(scene_text(scene), Limits()).scene == scene
    assert found.thumbnail("demo").startswith(b"\x89PNG")
    with pytest.raises(RefusedError):
        found.thumbnail("../demo")
