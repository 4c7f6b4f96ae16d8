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


def test_schema_is_printed():
    assert json.loads(run("schema").stdout) == json.loads(Path("docs/scene-v1.schema.json").read_text())


def test_nothing_is_overwritten_unasked(tmp_path):
    """`convert scenes/*.json` with two files once destroyed the second."""
    for name in ("a.json", "b.json", "b.png"):
        (tmp_path / name).write_bytes(Path(PANDA).read_bytes() if name == "a.json" else b"mine")
    for command in (("convert", "b.json"), ("render", "b.png")):
        result = run(command[0], tmp_path / "a.json", tmp_path / command[1])
        assert result.exit_code == 2 and "--overwrite" in result.stderr
        assert (tmp_path / command[1]).read_bytes() == b"mine"
        assert run(command[0], tmp_path / "a.json", tmp_path / command[1], "--overwrite").exit_code == 0
        assert (tmp_path / command[1]).read_bytes() != b"mine"
    assert run("convert", PANDA, tmp_path / "c.json", "--to", "coco").exit_code == 0
    before = (tmp_path / "c.captions.json").read_bytes()
    (tmp_path / "c.json").unlink()
    assert run("convert", PANDA, tmp_path / "c.json", "--to", "coco").exit_code == 2
    assert (tmp_path / "c.captions.json").read_bytes() == before and not (tmp_path / "c.json").exists()


def test_standard_input_and_output(tmp_path):
    def piped(*arguments, given=None):
        return CliRunner().invoke(cli, ["scene", *map(str, arguments)], input=given or Path(PANDA).read_bytes())

    assert piped("validate", "-").stdout == "-: ok (native, 4 instances)\n"
    official = piped("convert", "-", "-", "--to", "official")
    again = piped("convert", "-", "-", given=official.stdout_bytes)
    (tmp_path / "again.json").write_bytes(again.stdout_bytes)
    assert load_scene(tmp_path / "again.json") == load_scene(PANDA)
    assert piped("render", "-", "-").stdout_bytes.startswith(b"\x89PNG")
    assert not Path("-").exists()


def test_listings_as_json(bad, tmp_path):
    listed = json.loads(run("validate", PANDA, bad, "--json").stdout)
    assert [(item["ok"], len(item["scenes"])) for item in listed] == [(True, 1), (False, 0)]
    assert {"path", "message", "fix", "severity"} == listed[1]["problems"][0].keys()
    written = json.loads(run("convert", PANDA, tmp_path / "x.json", "--json").stdout)
    assert [Path(item["path"]).stat().st_size for item in written] == [item["bytes"] for item in written]
    assert "labelme" in json.loads(run("formats", "--json").stdout)


def phone_photo(path, size=(64, 48)):
    """A photo that is stored lying, with a note to turn it (EXIF orientation 6): seen it is 48 x 64."""
    stored = Image.new("RGB", size, "blue")
    stored.paste("red", (0, 0, size[0] // 2, size[1]))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(path, exif=exif, quality=95)


def test_photos_are_taken_as_they_are_seen(tmp_path):
    """A photo from a phone was once drawn on sideways and stretched, without a word."""
    phone_photo(tmp_path / "photo.jpg")
    scene = {"version": 1, "prompt": "p", "width": 48, "height": 64,
             "instances": [{"caption": "a", "box": [10, 4, 38, 24]}]}  # fmt: skip
    (tmp_path / "s.json").write_text(json.dumps(scene))
    shown = ("render", tmp_path / "s.json", tmp_path / "over.png", "--background", tmp_path / "photo.jpg")
    result = run(*shown, "--no-legend", "--size", 64)
    assert (result.exit_code, result.stderr) == (0, "")
    with Image.open(tmp_path / "over.png") as image:
        assert image.size == (48, 64)
        red, _, blue = image.getpixel((4, 10))
        assert red > 200 > blue
        assert image.getpixel((4, 60))[2] > 200
    coco = ("convert", tmp_path / "s.json", tmp_path / "c.json", "--to", "coco", "--picture", tmp_path / "photo.jpg")
    assert run(*coco).stderr == ""
    data = json.loads((tmp_path / "c.json").read_text())
    assert data["annotations"][0]["bbox"] == [10, 4, 28, 20]
    assert (data["images"][0]["width"], data["images"][0]["height"]) == (48, 64)


def test_a_picture_of_another_shape_is_told(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "wide.png")
    result = run("render", PANDA, tmp_path / "over.png", "--background", tmp_path / "wide.png")
    assert result.exit_code == 0 and "another shape" in result.stderr
    result = run("render", PANDA, tmp_path / "other.png", "--background", PANDA)
    assert result.exit_code == 2 and "is no picture" in result.stderr


def test_success_is_told_from_what_was_done(tmp_path):
    """Two pictures of one id were once "2 scenes", and one file."""
    images = [{"id": n, "file_name": name, "width": 64, "height": 48} for n, name in
              ((1, "front.jpg"), (1, "back.jpg"), (2, "A.jpg"), (3, "a.jpg"), (4, "x\\y\\a.png"))]  # fmt: skip
    annotations = [{"id": n, "image_id": n, "category_id": 1, "bbox": [1, 1, 9, 9]} for n in (1, 2, 3, 4)]
    data = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "dog"}]}
    (tmp_path / "coco.json").write_text(json.dumps(data))
    result = run("convert", tmp_path / "coco.json", tmp_path / "out")
    assert result.exit_code == 0 and "'front.jpg', 'back.jpg'" in result.stderr
    assert result.stderr.startswith("warning: ")
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(written) == 3 and f"{len(written)} scenes" in result.stdout
    assert len({name.casefold() for name in written}) == 3
    assert run("convert", tmp_path / "coco.json", tmp_path / "one.json").exit_code == 2


def test_warnings_are_called_warnings_also_beside_an_error(tmp_path):
    data = {"images": [{"id": 0, "file_name": "a.jpg", "width": -1, "height": -1}], "annotations": [], "categories": []}
    (tmp_path / "coco.json").write_text(json.dumps(data))
    result = run("convert", tmp_path / "coco.json", tmp_path / "out")
    assert result.exit_code == 2
    kinds = [line.partition(":")[0] for line in result.stderr.splitlines()]
    assert kinds == ["warning", "error"]


def test_lists_of_boxes_are_read_as_they_are_said_to_be(tmp_path):
    (tmp_path / "plan.json").write_text('[{"bbox": [250, 100, 750, 600], "label": "hen"}]')
    asked = run("convert", tmp_path / "plan.json", tmp_path / "s.json")
    assert asked.exit_code == 2 and "--boxes" in asked.stderr
    said = ("--boxes", "yxyx", "--units", "thousandths", "--canvas", "100x80")
    assert run("convert", tmp_path / "plan.json", tmp_path / "s.json", *said).exit_code == 0
    assert json.loads((tmp_path / "s.json").read_text())["instances"] == [{"caption": "hen", "box": [10, 20, 60, 60]}]
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.2 0.2")
    assert run("convert", tmp_path / "a.txt", tmp_path / "y.json", "--labels", "hen,cow").exit_code == 0
    assert load_scene(tmp_path / "y.json").prompt == "hen"


def test_lettering_of_other_scripts(tmp_path):
    scene = {"version": 1, "prompt": "Медведь", "width": 64, "height": 64,
             "instances": [{"caption": "Медведь", "box": [4, 4, 60, 60]}]}  # fmt: skip
    (tmp_path / "s.json").write_text(json.dumps(scene))
    assert run("render", tmp_path / "s.json", tmp_path / "a.png").exit_code == 0
    assert run("render", tmp_path / "s.json", tmp_path / "b.png", "--font", PANDA).exit_code == 1
