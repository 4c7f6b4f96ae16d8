"""The published demo format: files with known faults load, with a warning for each."""

import json
import warnings

import pytest
from hypothesis import given, settings

from instancediffusion.errors import SceneError, SceneWarning
from instancediffusion.scene import Box, Scene, check_scene, load_scene, save_scene
from instancediffusion.scene.formats.official import read_official, write_official
from instancediffusion.scene.problem_report import Report

from .strategies import alike, scenes


def published(*annos, width=512, height=512, **more):
    return {"caption": "a kitchen", "width": width, "height": height, "annos": list(annos), **more}


def read(data):
    report = Report(lenient=True)
    return read_official(data, report), report.problems


def test_every_key_of_the_published_files():
    scene, problems = read(
        published(
            {"bbox": [0, 128, 256, 64], "mask": [], "category_name": "dog", "caption": "a dog"},
            {"bbox": [], "point": [256, 128], "caption": "flat", "scribble": [0, 0, 512, 256, 256, 512]},
            {"caption": "nested", "scribble": [[0, 0], [512, 512]]},
            {"caption": "mask", "mask": {"size": [512, 512], "counts": [0, 262144]}},
        )
    )
    assert not problems
    dog, flat, nested, mask = scene.instances
    assert dog.box == Box(0, 0.25, 0.5, 0.375)
    assert flat.kinds == ("point", "scribble")
    assert flat.scribble.points == ((0, 0), (1, 0.5), (0.5, 1))
    assert nested.scribble.points == ((0, 0), (1, 1))
    assert mask.mask.area == 512 * 512


def test_the_tidied_spelling():
    data = {"name": "n", "run": {"seed": 0}, "caption": "p", "width": 64, "height": 32, "units": "pixels"}
    data["instances"] = [{"caption": "a", "category": "b", "box": [0, 0, 32, 32]}]
    scene, problems = read(data)
    assert not problems
    assert scene.instances[0].box == Box(0, 0, 0.5, 1)


@pytest.mark.parametrize(
    ("anno", "says", "kept"),
    [
        ({"bbox": [0, 228, 763, 125]}, "cut to [0, 228, 512, 353]", True),
        ({"bbox": [0, 512, 0, 0]}, "no area", False),
        ({"bbox": [0, 512, 0, 0], "point": [3, 3]}, "no area", True),
        ({"bbox": [300, 300, 400, 420]}, "looks like [x0, y0, x1, y1]", True),
        ({}, "no location", False),
        ({"scribble": [[5, 5], [600, 5], [7, -3]]}, "2 of 3 points outside", True),
        ({"scribble": [5, 5, 6]}, "no pairs", False),
        ({"scribble": [5, 5]}, "one point", False),
        ({"point": [900, 1]}, "outside", False),
        ({"mask": {"counts": [0, 262144]}}, "taken to be [512, 512]", True),
        ({"mask": {"size": [512, 500], "counts": [0, 256000]}}, "[height, width] = [512, 512]", False),
        ({"mask": {"size": [512, 512], "counts": "zzz"}}, "left out", False),
        ({"point": [1, 1], "colour": 1}, "is not read", True),
    ],
)
def test_faults_of_the_data_are_warnings(tmp_path, anno, says, kept):
    (tmp_path / "s.json").write_text(json.dumps(published({"caption": "x", **anno}, {"caption": "y", "point": [1, 2]})))
    with pytest.warns(SceneWarning) as caught:
        scene = load_scene(tmp_path / "s.json")
    assert any(says in str(w.message) for w in caught)
    assert [i.caption for i in scene.instances] == (["x", "y"] if kept else ["y"])


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (published({"caption": "", "point": [1, 1]}), "$.annos[0].caption"),
        (published({"point": [1, 1]}), "$.annos[0].caption"),
        (published({"caption": "x", "bbox": "0 0 1 1"}), "$.annos[0].bbox"),
        (published({"caption": "x", "bbox": [0, 0, float("nan"), 1]}), "$.annos[0].bbox[2]"),
        (published({"caption": "x", "bbox": [1e308, 0, 1e308, 1]}), "$.annos[0].bbox[0]"),
        (published({"caption": "x", "mask": "no"}), "$.annos[0].mask"),
        (published(width=5), "$.width"),
        (published(height="512"), "$.height"),
        ({"caption": "x", "annos": []}, "$.width"),
        ({"caption": "x", "width": 64, "height": 64}, "$.annos"),
        (published(*[{"caption": "x", "point": [1, 1]}] * 1001), "$.annos"),
    ],
)
def test_faults_of_the_form_are_errors(tmp_path, data, path):
    (tmp_path / "s.json").write_text(json.dumps(data))
    check = check_scene(tmp_path / "s.json")
    assert check.format == "official"
    assert check.scene is None
    assert path in [p.path for p in check.problems if p.severity == "error"]


def test_a_file_of_corner_boxes_is_refused():
    corners = [[10, 10, 500, 500], [300, 200, 400, 500], [200, 300, 480, 490]]
    scene, problems = read(published(*({"caption": "x", "bbox": box} for box in corners)))
    assert scene is None
    assert any("all read as [x0, y0, x1, y1]" in p.message for p in problems)


def test_without_leniency_the_same_faults_are_errors():
    report = Report()
    assert read_official(published({"caption": "x", "bbox": [0, 512, 0, 0]}), report) is None
    assert {p.severity for p in report.problems} == {"error"}


@settings(max_examples=60)
@given(scenes())
def test_reading_undoes_writing(scene):
    again, problems = read(json.loads(json.dumps(write_official(scene), allow_nan=False)))
    assert alike(scene, again)
    assert not [p for p in problems if "within one pixel" not in p.message]


def test_native_and_published_files_say_the_same(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scene = load_scene("examples/panda_balloons.json")
        save_scene(scene, tmp_path / "s.json", format="official")
        assert load_scene(tmp_path / "s.json") == scene
    assert json.loads((tmp_path / "s.json").read_text())["annos"][0]["bbox"] == [60, 200, 240, 300]


def test_the_format_can_be_insisted_on(tmp_path):
    save_scene(Scene("p", (), 64, 64), tmp_path / "s.json")
    with pytest.raises(SceneError, match=r"\$.caption: is missing"):
        load_scene(tmp_path / "s.json", format="official")
    with pytest.raises(ValueError, match="format is one of"):
        load_scene(tmp_path / "s.json", format="yaml")
