"""A world as a COCO data set: read back by our reader and by the reference one."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from pycocotools.coco import COCO

from instancediffusion.cli.scene import convert
from instancediffusion.cli.world import world as command
from instancediffusion.errors import SettingsError
from instancediffusion.projects.emoji_world import export_coco
from instancediffusion.scene import load_scene, read_coco


@pytest.fixture(scope="module")
def exported(make_world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    return folder, export_coco(make_world(max_objects=5), folder, 12, first_seed=40)


def test_scenes_come_back_as_they_were(make_world, exported):
    folder, (instances, captions) = exported
    world = make_world(max_objects=5)
    read = read_coco(instances, captions)
    assert len(read) == 12
    for number, item in enumerate(read):
        sample = world.sample(40 + number)
        assert item.scene == sample.to_scene(("box", "mask"))
        with Image.open(folder / item.file_name) as picture:
            assert np.array_equal(np.asarray(picture), sample.image)


def test_the_reference_reader_sees_the_truth(make_world, exported, capsys):
    _, (instances, captions) = exported
    world = make_world(max_objects=5)
    data, texts = COCO(str(instances)), COCO(str(captions))
    names = {number: category["name"] for number, category in data.cats.items()}
    assert sorted(names.values()) == sorted(kind.name for kind in world.kinds)
    for image_id, image in data.imgs.items():
        sample = world.sample(image["seed"])
        assert (texts.imgToAnns[image_id][0]["caption"], image["background"]) == (sample.prompt, sample.background)
        for found, item in zip(data.imgToAnns[image_id], sample.instances, strict=True):
            assert names[found["category_id"]] == item.name
            assert np.array_equal(data.annToMask(found).astype(bool), item.amodal)
            visible = data.annToMask(found | {"segmentation": found["visible"]})
            assert np.array_equal(visible.astype(bool), item.visible)
            x, y, width, height = (value / 64 for value in found["bbox"])
            assert item.box == pytest.approx([x, y, x + width, y + height])
            assert found["area"] == item.amodal.sum()
            assert (found["caption"], found["z_order"]) == (item.caption, item.z_order)
            assert (found.get("colour"), found.get("facing")) == (item.colour, item.facing)
            assert found.get("parts", {}).keys() == item.parts.keys()
            for name, (x, y, width, height) in found.get("parts", {}).items():
                assert np.array([x, y, x + width, y + height]) / 64 == pytest.approx(item.parts[name], abs=0.001)


def test_category_numbers_do_not_depend_on_what_was_drawn(make_world, exported, tmp_path):
    paths = export_coco(make_world(max_objects=1), tmp_path, 1)
    first, second = (json.loads(path.read_text())["categories"] for path in (exported[1][0], paths[0]))
    assert first == second


def test_the_scene_command_reads_it(exported, tmp_path):
    _, (instances, captions) = exported
    result = CliRunner().invoke(convert, [str(instances), str(tmp_path / "scenes"), "--captions", str(captions)])
    assert result.exit_code == 0, result.output
    files = sorted((tmp_path / "scenes").iterdir())
    assert len(files) == 12
    assert load_scene(files[0]) == read_coco(instances, captions)[0].scene


def test_nothing_is_overwritten_and_nothing_is_nothing(make_world, exported, tmp_path):
    with pytest.raises(SettingsError, match="another folder"):
        export_coco(make_world(), exported[0], 1)
    with pytest.raises(SettingsError, match="count"):
        export_coco(make_world(), tmp_path, 0)


def test_other_kinds_of_location_are_written_when_asked_for(make_world, tmp_path):
    world = make_world()
    every = ("box", "point", "scribble", "mask")
    paths = export_coco(world, tmp_path, 3, kinds=every)
    for number, item in enumerate(read_coco(*paths)):
        assert item.scene == world.sample(number).to_scene(every)


def test_the_command_says_what_is_missing(tmp_path):
    result = CliRunner().invoke(
        command, ["export", "-o", str(tmp_path / "out"), "--count", "1", "--cache", str(tmp_path)]
    )
    assert result.exit_code != 0
    assert "world build" in str(result.exception)
