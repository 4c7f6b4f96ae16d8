"""COCO instances and captions."""

import json
import warnings

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO

from instancediffusion.cli.scene import convert
from instancediffusion.errors import SceneError, SceneWarning
from instancediffusion.scene import (
    Box,
    CocoScene,
    Instance,
    Mask,
    Scene,
    coco_paths,
    load_scene,
    read_coco,
    save_scene,
    write_coco,
)

from .strategies import alike, scenes

RING = [10.0, 10.0, 60.0, 12.0, 50.0, 70.0, 12.0, 40.0]


def files(*annotations, **image):
    instances = {
        "info": {},
        "images": [{"id": 9, "file_name": "000009.jpg", "width": 100, "height": 80, "license": 1, **image}],
        "categories": [{"id": 18, "name": "dog", "supercategory": "animal"}, {"id": 1, "name": "person"}],
        "annotations": [
            {"id": n, "image_id": 9, "category_id": 18, "iscrowd": 0, **a} for n, a in enumerate(annotations)
        ],
    }
    texts = [{"id": 1, "image_id": 9, "caption": "A dog. "}, {"id": 2, "image_id": 9, "caption": "Another."}]
    return instances, {"images": instances["images"], "annotations": texts}


def test_an_image_with_captions_becomes_a_scene():
    box = {"bbox": [10, 20, 50, 40], "segmentation": [RING], "area": 1.0}
    crowd = {"bbox": [0, 0, 9, 9], "segmentation": {"size": [80, 100], "counts": [0, 8000]}, "iscrowd": 1}
    (item,) = read_coco(*files(box, crowd))
    assert (item.image_id, item.file_name) == (9, "000009.jpg")
    assert item.scene.prompt == "A dog."
    (dog,) = item.scene.instances
    assert dog.caption == "dog"
    assert dog.box == Box(0.1, 0.25, 0.6, 0.75)
    reference = coco.decode(coco.merge(coco.frPyObjects([RING], 80, 100))).astype(bool)
    assert (dog.mask.array & reference).sum() / (dog.mask.array | reference).sum() > 0.95
    assert item.scene.instances[0].kinds == ("box", "mask")


def test_kinds_and_images_can_be_chosen():
    data, texts = files({"bbox": [10, 20, 50, 40], "segmentation": [RING]})
    (item,) = read_coco(data, texts, kinds=["box"])
    assert item.scene.instances[0].kinds == ("box",)
    assert read_coco(data, texts, image_ids=[8]) == []


def test_without_captions_the_prompt_names_the_objects():
    data, _ = files({"bbox": [10, 20, 50, 40]}, {"bbox": [1, 2, 5, 4]}, {"bbox": [1, 2, 5, 4], "category_id": 1})
    assert read_coco(data)[0].scene.prompt == "dog, person"


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        ({"bbox": [10, 20, 0, 40]}, "no area"),
        ({"bbox": [10, 20, 5, 5], "category_id": 77}, "unknown category 77"),
        ({}, "no location"),
        ({"segmentation": [[1, 2, 3]]}, "3 numbers"),
        ({"segmentation": [[900, 900, 950, 900, 950, 950]]}, "covers no pixel"),
        ({"segmentation": {"size": [10, 10], "counts": [100]}}, "height, width"),
    ],
)
def test_faults_of_the_data_are_warnings(annotation, says):
    with pytest.warns(SceneWarning) as caught:
        (item,) = read_coco(*files(annotation, {"bbox": [1, 1, 9, 9]}))
    assert any(says in str(w.message) for w in caught)
    assert len(item.scene.instances) == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.pop("images"),
        lambda data: data.update(annotations={}),
        lambda data: data["images"].append(3),
        lambda data: data["images"][0].update(width="100"),
        lambda data: data["images"][0].pop("height"),
        lambda data: data["images"][0].update(file_name=3),
        lambda data: data["annotations"][0].update(image_id=None),
        lambda data: data["annotations"][0].update(bbox=[1, 2, "3", 4]),
        lambda data: data["annotations"][0].update(bbox=None, segmentation=[["a"]]),
        lambda data: data["categories"][0].update(name=""),
    ],
)
def test_faults_of_the_form_are_errors(spoil):
    data, texts = files({"bbox": [1, 1, 9, 9]})
    spoil(data)
    with pytest.raises(SceneError):
        read_coco(data, texts)


@settings(max_examples=40)
@given(scenes())
def test_reading_undoes_writing(scene):
    items = [CocoScene(4, "a.png", scene), CocoScene(7, "b.png", scene)]
    data = json.loads(json.dumps(write_coco(items), allow_nan=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SceneWarning)
        again = read_coco(*data)
    assert [(i.image_id, i.file_name) for i in again] == [(4, "a.png"), (7, "b.png")]
    for item in again:
        # COCO captions are read without the blanks around them.
        assert item.scene.prompt == scene.prompt.strip()
        assert alike(type(scene)(item.scene.prompt, scene.instances, scene.width, scene.height, scene.negative_prompt),
                     item.scene)  # fmt: skip


def test_the_coco_library_reads_what_is_written(tmp_path, capsys):
    scene = load_scene("examples/corgi_kitchen.json")
    paths = coco_paths(tmp_path / "x.json")
    for path, data in zip(paths, write_coco([CocoScene(1, "corgi.png", scene)]), strict=True):
        path.write_text(json.dumps(data))
    instances, captions = COCO(paths[0]), COCO(paths[1])
    capsys.readouterr()
    annotations = instances.loadAnns(instances.getAnnIds(imgIds=1))
    assert len(annotations) == len(scene.instances)
    for annotation, instance in zip(annotations, scene.instances, strict=True):
        x, y, width, height = annotation["bbox"]
        np.testing.assert_allclose(np.array([x, y, x + width, y + height]) / 512, instance.box.xyxy)
        if instance.mask is not None:
            assert (instances.annToMask(annotation).astype(bool) == instance.mask.array).all()
            assert annotation["area"] == instance.mask.area
    assert captions.loadAnns(captions.getAnnIds(imgIds=1))[0]["caption"] == scene.prompt


def test_instances_can_share_a_category():
    scene = load_scene("examples/test2_bbox_apple_pear1.json")
    named = {instance.caption: "fruit" for instance in scene.instances}
    data, _ = write_coco([CocoScene(1, "a.png", scene)], categories=named)
    assert data["categories"] == [{"id": 1, "name": "fruit"}]


def test_annotations_are_in_pixels_of_the_picture(tmp_path):
    """A 512 pixel scene drawn as a 128 pixel picture once got boxes in pixels of the scene."""
    bitmap = np.zeros((512, 512), bool)
    bitmap[100:200, 40:80] = True
    scene = Scene(
        prompt="things",
        width=512,
        height=512,
        instances=(
            Instance("a box", box=Box(0.25, 0.5, 0.5, 0.75)),
            Instance("a mask", mask=Mask.from_array(bitmap)),
            Instance("a hair", mask=Mask.from_array(np.eye(512, dtype=bool)[:, ::-1] & (np.arange(512) == 7))),
        ),
    )
    save_scene(scene, tmp_path / "scene.json")
    picture = tmp_path / "made.png"
    Image.new("RGB", (128, 64)).save(picture)
    arguments = [str(tmp_path / "scene.json"), str(tmp_path / "out.json"), "--to", "coco", "--picture", str(picture)]
    result = CliRunner().invoke(convert, arguments)
    assert result.exit_code == 0, result.output
    data = json.loads((tmp_path / "out.json").read_text())
    assert (data["images"][0]["width"], data["images"][0]["height"]) == (128, 64)
    assert data["annotations"][0]["bbox"] == [32, 32, 32, 16]
    assert data["annotations"][1]["bbox"] == [10, 12, 10, 13]
    assert data["annotations"][2]["area"] == 1
