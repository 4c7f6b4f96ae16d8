"""A scene format of one's own is one object, registered; every function and command then knows it."""

import json

import pytest
from click.testing import CliRunner

from instancediffusion import Box, Instance, Scene, load_scene, save_scene
from instancediffusion.cli import cli
from instancediffusion.scene import NamedScene, SceneFormat, check_scene_text, register
from instancediffusion.scene.formats.scene_format import FORMATS

SCENE = Scene("two hens", (Instance("hen", box=Box(0, 0, 0.5, 1)), Instance("hen", box=Box(0.5, 0, 1, 1))), 64, 32)


@pytest.fixture
def columns():
    """Instances as columns of the canvas, told by their widths: {"columns": [["hen", 32], ...], "height": 32}."""

    def read(content, report, options):
        width, left, found = sum(wide for _, wide in content["columns"]), 0, []
        for caption, wide in content["columns"]:
            found.append(Instance(caption, box=Box(left / width, 0, (left + wide) / width, 1)))
            left += wide
        return [NamedScene(options.name or "columns", Scene(content["prompt"], tuple(found), width, content["height"]))]

    def write(scene):
        wide = [[one.caption, round((one.box.xyxy[2] - one.box.xyxy[0]) * scene.width)] for one in scene.instances]
        return json.dumps({"prompt": scene.prompt, "columns": wide, "height": scene.height})

    def recognise(value):
        return isinstance(value, dict) and "columns" in value

    yield register(SceneFormat("columns", "a file of columns", recognise=recognise, read=read, write=write))
    FORMATS.pop("columns")


def test_a_format_of_ones_own_is_one_object(columns, tmp_path):
    save_scene(SCENE, tmp_path / "a.json", format="columns")
    assert load_scene(tmp_path / "a.json") == load_scene(tmp_path / "a.json", format="columns") == SCENE
    # What it holds ("prompt") would be taken for a native scene, were ours asked first.
    assert check_scene_text((tmp_path / "a.json").read_text()).format == "columns"

    def run(*arguments):
        result = CliRunner().invoke(cli, ["scene", *map(str, arguments)])
        assert result.exit_code == 0, result.output
        return result.output

    assert "a file of columns" in run("formats")
    run("convert", tmp_path / "a.json", tmp_path / "b.json", "--from", "columns", "--to", "native")
    run("convert", tmp_path / "b.json", tmp_path / "c.json", "--to", "columns")
    assert (tmp_path / "c.json").read_text() == (tmp_path / "a.json").read_text()


def test_a_name_that_is_gone_is_refused(tmp_path):
    with pytest.raises(ValueError, match="native, official, not 'columns'"):
        save_scene(SCENE, tmp_path / "a.json", format="columns")
    result = CliRunner().invoke(cli, ["scene", "convert", "examples/demo.json", "-", "--to", "columns"])
    assert result.exit_code == 2 and "'official'" in result.output


def test_a_format_that_is_not_read_says_what_to_do():
    with pytest.raises(ValueError, match="fix"):
        register(SceneFormat("mute", "a mute file"))
    assert "mute" not in FORMATS
    found = check_scene_text('{"_via_img_metadata": {}}')
    assert found.scene is None and "export it as COCO" in str(found.problems[0])
