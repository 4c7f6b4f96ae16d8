"""The `scene` command."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from instancediffusion.cli import cli
from instancediffusion.scene import load_scene

PANDA = "examples/panda_balloons.json"


def run(*args):
    return CliRunner().invoke(cli, ["scene", *map(str, args)])


@pytest.fixture
def bad(tmp_path):
    path = tmp_path / "bad.json"
    path.write_text('{"version": 1, "prompt": "", "width": 512, "heigth": 512, "instances": [{"caption": "a"}]}')
    return path


@pytest.fixture
def faulty(tmp_path):
    data = {"caption": "p", "width": 64, "height": 64, "annos": [{"caption": "a", "bbox": [0, 0, 90, 9]}]}
    path = tmp_path / "faulty.json"
    path.write_text(json.dumps(data))
    return path


def test_validate_says_ok():
    result = run("validate", PANDA, "examples/eagle_left.json")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == f"{PANDA}: ok (native, 4 instances)"


def test_validate_prints_every_problem_of_every_file(bad, faulty):
    result = run("validate", bad, PANDA, faulty)
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    paths = ["$.heigth", "$.height", "$.prompt", "$.instances[0]", "$.annos[0].bbox"]
    assert [line.split(": ")[2] for line in lines] == paths
    assert lines[-1].startswith("warning: ")
    assert result.stdout.count("ok") == 2


def test_validate_strict_counts_warnings(faulty):
    assert run("validate", faulty).exit_code == 0
    assert run("validate", faulty, "--strict").exit_code == 2


def test_render_by_suffix(tmp_path, bad):
    assert run("render", PANDA, tmp_path / "a.png", "--size", 256).exit_code == 0
    with Image.open(tmp_path / "a.png") as image:
        assert image.height == 256
        image.save(tmp_path / "b.png")
    assert run("render", PANDA, tmp_path / "a.svg", "--no-legend", "--background", tmp_path / "b.png").exit_code == 0
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    assert run("render", PANDA, tmp_path / "a.gif").exit_code == 2
    result = run("render", bad, tmp_path / "c.png")
    assert result.exit_code == 2
    assert "did you mean 'height'" in result.stderr
    assert not (tmp_path / "c.png").exists()


@pytest.mark.parametrize("form", ["official", "coco"])
def test_convert_there_and_back(tmp_path, form):
    assert run("convert", PANDA, tmp_path / "x.json", "--to", form).exit_code == 0
    captions = ["--captions", tmp_path / "x.captions.json"] if form == "coco" else []
    assert run("convert", tmp_path / "x.json", tmp_path / "back.json", *captions).exit_code == 0
    assert load_scene(tmp_path / "back.json") == load_scene(PANDA)


def test_convert_many_pictures_to_a_folder(tmp_path):
    annotations = [{"id": n, "image_id": n, "category_id": 1, "bbox": [1, 1, 9, 9]} for n in (1, 2)]
    images = [{"id": n, "file_name": f"train/{n:03}.jpg", "width": 64, "height": 48} for n in (1, 2)]
    data = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "dog"}]}
    (tmp_path / "coco.json").write_text(json.dumps(data))
    assert run("convert", tmp_path / "coco.json", tmp_path / "out").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["001.json", "002.json"]
    assert run("convert", tmp_path / "coco.json", tmp_path / "one.json", "--image-id", 2).exit_code == 0
    assert load_scene(tmp_path / "one.json").width == 64
    assert run("convert", tmp_path / "coco.json", tmp_path / "none.json", "--image-id", 5).exit_code == 2


def test_convert_says_what_was_mended(tmp_path, faulty):
    result = run("convert", faulty, tmp_path / "out.json")
    assert result.exit_code == 0
    assert "was cut to [0, 0, 64, 9]" in result.stderr


def test_arrange_writes_a_scene_of_what_a_prompt_names(tmp_path):
    out = tmp_path / "scene.json"
    result = run("arrange", "a dog in front of a castle in a meadow", out, "--seed", 3, "--width", 640)
    assert result.exit_code == 0, result.output
    scene = load_scene(out)
    assert [(i.caption, i.z_order) for i in scene.instances] == [("a dog", 1), ("a castle", 0)]
    assert (scene.prompt, scene.width) == ("a dog in front of a castle in a meadow", 640)
    before = out.read_bytes()
    assert run("arrange", "a cat", out).exit_code == 2  # nothing of the user's is written over
    assert out.read_bytes() == before
    nothing = run("arrange", "a thought", tmp_path / "none.json")
    assert nothing.exit_code == 2 and "doctor --vocabulary" in nothing.stderr
    assert not (tmp_path / "none.json").exists()


def test_schema_is_printed():
    assert json.loads(run("schema").stdout) == json.loads(Path("docs/scene-v1.schema.json").read_text())
