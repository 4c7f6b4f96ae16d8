"""Hostile files, the quirks of real ones, and the registry."""

import io
import json
import os
import tarfile
import warnings

import numpy as np
import pytest
from PIL import Image

from instancediffusion.datasets import (
    FORMATS,
    DatasetFormat,
    Example,
    LazyDataset,
    ReadingOptions,
    open_dataset,
    register,
    usable,
    write_dataset,
)
from instancediffusion.errors import SceneError, SceneWarning, SettingsError
from instancediffusion.scene import Box, Instance, Scene


def picture(path, size=(40, 30), **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 30, 30)).save(path, **save)
    return path


def coco(folder, **changes):
    data = {
        "images": [{"id": 7, "file_name": "a.png", "width": 40, "height": 30}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 18, "bbox": [4, 3, 20, 15]}],
        "categories": [{"id": 18, "name": "dog"}, {"id": 44, "name": "bottle"}],
    }
    path = folder / "annotations" / "instances_val2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data | changes))
    return path


def test_coco_keeps_numbers_names_and_files(tmp_path):
    coco(tmp_path / "in")
    picture(tmp_path / "in" / "val2017" / "a.png")
    write_dataset(open_dataset(tmp_path / "in"), tmp_path / "out", "coco")
    data = json.loads((tmp_path / "out" / "instances.json").read_text())
    assert data["categories"] == [{"id": 18, "name": "dog"}, {"id": 44, "name": "bottle"}]
    assert [(i["id"], i["file_name"]) for i in data["images"]] == [(7, "a.png")]
    assert [(a["category_id"], a["bbox"]) for a in data["annotations"]] == [(18, [4, 3, 20, 15])]


def test_quirks_of_coco_files(tmp_path):
    annotations = [
        {"id": 1, "image_id": "7", "category_id": "18", "segmentation": [4, 3, 24, 3, 24, 18, 4, 18]},
        {"id": 2, "image_id": 7, "category_id": 18, "bbox": [0, 0, 9, 9], "iscrowd": 1},
        {"id": 3, "image_id": 7, "category_id": 99, "bbox": [0, 0, 9, 9]},
        {"id": 4, "image_id": 7, "category_id": 44, "bbox": [30, 20, 99, 99], "segmentation": None},
    ]
    images = [
        {"id": 7, "file_name": "C:\\pictures\\a.png", "width": 40, "height": 30},
        {"id": 8, "file_name": "b.png", "width": -1, "height": -1},
        {"id": 9, "file_name": "c.png", "width": 40, "height": 30},
    ]
    path = coco(tmp_path, images=images, annotations=annotations)
    picture(tmp_path / "val2017" / "a.png")
    with pytest.warns(SceneWarning):
        found = list(usable(open_dataset(path)))
    assert [index for index, _ in found] == [0]
    example = found[0][1]
    assert example.categories == ("dog", "bottle") and example.image.name == "a.png"
    assert [i.kinds for i in example.scene.instances] == [("mask",), ("box",)]


@pytest.mark.parametrize(
    ("annotations", "told"),
    [
        ([{"image_id": 7, "segments_info": [{"id": 3, "category_id": 18, "bbox": [0, 0, 9, 9]}]}], "panoptic"),
        ([{"id": 1, "image_id": 7, "caption": "a dog"}], "captions file"),
    ],
)
def test_sibling_files_of_coco_are_refused_by_name(tmp_path, annotations, told):
    with pytest.raises(SceneError, match=told):
        open_dataset(coco(tmp_path, annotations=annotations), "coco")


def test_a_photograph_annotated_as_it_is_stored_is_read_as_it_is_stored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = picture(tmp_path / "a.jpg", (40, 30), exif=exif)
    instance = (Instance("dog", box=Box(0, 0, 0.5, 0.5)),)
    for size in ((40, 30), (30, 40)):
        example = Example(Scene("dog", instance, *size), path, "a.jpg")
        assert example.size == size == example.pixels().shape[1::-1]
        data, _ = example.encoded()
        with Image.open(io.BytesIO(data)) as upright:
            assert upright.size == size and upright.getexif().get(0x0112, 1) == 1


def test_nothing_of_a_tar_file_is_written_by_its_names(tmp_path):
    good = {
        "version": 1,
        "prompt": "x",
        "width": 40,
        "height": 30,
        "instances": [{"caption": "x", "box": [0, 0, 9, 9]}],
    }
    png = picture(tmp_path / "p.png").read_bytes()
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for key in ("../../evil", "/abs/evil", "fine"):
            for suffix, data in ((".png", png), (".json", json.dumps(good).encode())):
                info = tarfile.TarInfo(key + suffix)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    dataset = open_dataset(tmp_path / "s.tar")
    assert len(dataset) == 3
    write_dataset(dataset, tmp_path / "deep" / "out", "yolo")
    written = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {"p.png", "s.tar", "deep"} and not list(tmp_path.parent.glob("evil*"))


def test_damaged_and_hostile_files_are_refused_in_a_sentence(tmp_path):
    (tmp_path / "cut.tar").write_bytes(b"x" * 700)
    with pytest.raises(SceneError, match="no tar file"):
        open_dataset(tmp_path / "cut.tar")
    bomb = '<!DOCTYPE a [<!ENTITY b "bb">]><annotations><image id="0" name="&b;" width="40" height="30"/></annotations>'
    (tmp_path / "annotations.xml").write_text(bomb)
    with pytest.raises(SceneError, match="declares entities"):
        open_dataset(tmp_path, "cvat")
    (tmp_path / "x.json").write_text("[" * 100_000)
    with pytest.raises(SceneError, match="nested too deeply"):
        open_dataset(tmp_path / "x.json", "coco")
    dataset = open_dataset(coco(tmp_path / "far", images=[
        {"id": 7, "file_name": "../../../../../etc/hostname", "width": 40, "height": 30}]))  # fmt: skip
    assert dataset[0].image is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.timeout(60)
def test_a_pipe_among_pictures_is_not_waited_for(tmp_path):
    from instancediffusion.annotation import open_pictures

    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "none")
    Image.new("RGB", (32, 24)).save(tmp_path / "a.png")
    (tmp_path / "a.json").write_text('{"version": 1, "prompt": "x", "width": 32, "height": 24, "instances": []}')
    pictures = open_pictures(tmp_path, "pictures")
    assert [path.name for path in pictures.files] == ["a.png", "nowhere.png"]
    assert open_dataset(tmp_path)[0].pixels().shape == (24, 32, 3)
    with pytest.raises(SceneError, match="is no file"):
        Example(Scene("x", (), 32, 24), tmp_path / "pipe.png").pixels()
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(SceneError, match="holds no labelled picture"):
        open_dataset(tmp_path, "webdataset")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
@pytest.mark.filterwarnings("ignore")  # Pillow warns of some faults
def test_damaged_pictures_are_read_or_refused(kind):
    """Nothing else comes out, whatever byte is changed or missing: one bad picture must not stop a run."""
    rng, out, exif = np.random.default_rng(0), io.BytesIO(), Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "turned"
    pixels = rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, kind, **({} if kind == "BMP" else {"exif": exif}))
    data, refused = out.getvalue(), 0
    for trial in range(300):
        bad = bytearray(data[: rng.integers(1, len(data))] if trial % 3 == 0 else data)
        for place in rng.integers(0, min(len(bad), 200 if trial % 2 else len(bad)), 1 + trial % 4):
            bad[place] = rng.integers(256)
        example = Example(Scene("x", (), 24, 16), bytes(bad), "bad")
        for read in (lambda one: one.size, Example.encoded, Example.pixels):
            try:
                read(example)
            except SceneError as error:
                assert "the picture" in str(error)
                refused += 1
    assert refused


def test_a_part_of_yolo_is_where_its_yaml_says(tmp_path):
    for part in ("one", "two"):
        (tmp_path / "images" / part).mkdir(parents=True)
        (tmp_path / "labels" / part).mkdir(parents=True)
        Image.new("RGB", (32, 24)).save(tmp_path / "images" / part / f"{part}.png")
        (tmp_path / "labels" / part / f"{part}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "classes.txt").write_text("cat\n")
    (tmp_path / "data.yaml").write_bytes(b"# \xff is no UTF-8\ntrain: images/one\nval: images/two\nnames:\n  0: cat\n")
    read = open_dataset(tmp_path, "yolo", ReadingOptions(split="val"))
    assert [read[index].file_name for index in range(len(read))] == ["two.png"]


def test_a_format_of_ones_own_is_one_object(tmp_path):
    rows = [
        Example(Scene("x", (Instance("x", box=Box(0, 0, 1, 1)),), 16, 16), np.zeros((16, 16, 3), np.uint8), "x.png")
    ]

    def write(examples, folder, categories):
        (folder / "mine").write_text(str(len(list(examples))))

    def read(path, options: ReadingOptions):
        return LazyDataset(str(path), rows, lambda _, row: row)

    try:
        register(DatasetFormat("mine", "mine", frozenset({"box"}), lambda p: (p / "mine").exists(), read, write))
        write_dataset(LazyDataset("rows", rows, lambda _, row: row), tmp_path / "out", "mine")
        assert open_dataset(tmp_path / "out")[0] is rows[0]
    finally:
        FORMATS.pop("mine")
    with pytest.raises(SettingsError, match="known formats"):
        open_dataset(tmp_path, "mine")
    with warnings.catch_warnings(), pytest.raises(SettingsError, match="not empty"):
        write_dataset(LazyDataset("rows", rows, lambda _, row: row), tmp_path, "coco")


def test_the_page_tells_what_each_format_holds():
    from tests.conftest import ROOT

    from instancediffusion.datasets import FEATURES

    lines = (ROOT / "docs" / "datasets.md").read_text().splitlines()
    assert "| | " + " | ".join(f"`{name}`" for name in FORMATS) + " |" in lines
    for feature, told in FEATURES.items():
        held = " | ".join("yes" if feature in known.holds else "" for known in FORMATS.values())
        assert f"| {feature} ({told}) | {held} |" in lines
