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
        lambda data: data.pop("annotations"),
        lambda data: data.update(annotations={}),
        lambda data: data.update(categories="dog"),
    ],
)
def test_a_file_without_its_lists_is_an_error(spoil):
    data, texts = files({"bbox": [1, 1, 9, 9]})
    spoil(data)
    with pytest.raises(SceneError):
        read_coco(data, texts)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data["images"].append(3),
        lambda data: data["images"].append({"id": 5, "file_name": "x.jpg", "width": "wide", "height": 80}),
        lambda data: data["images"].append({"id": 5, "file_name": "x.jpg", "width": -1, "height": -1}),
        lambda data: data["images"].append({"id": 5, "file_name": "x.jpg", "width": 100}),
        lambda data: data["images"].append({"id": 5, "file_name": 3, "width": 100, "height": 80}),
        lambda data: data["images"].append({"id": None, "file_name": "x.jpg", "width": 100, "height": 80}),
        lambda data: data["annotations"].append({"image_id": None, "category_id": 18, "bbox": [1, 2, 3, 4]}),
        lambda data: data["annotations"].append({"image_id": 9, "category_id": 18, "bbox": [1, 2, "x", 4]}),
        lambda data: data["annotations"].append({"image_id": 9, "category_id": 18, "bbox": None}),
        lambda data: data["annotations"].append({"image_id": 9, "category_id": 18, "segmentation": [["a"]]}),
        lambda data: data["annotations"].append({"image_id": 9, "category_id": 18, "segmentation": "oooo"}),
        lambda data: data["annotations"].append(
            {"image_id": 9, "category_id": 18, "bbox": [1, 2, 3, 4], "z_order": "x"}
        ),
        lambda data: data["annotations"].append([]),
        lambda data: data["categories"].append({"id": 3, "name": ""}),
        lambda data: data["categories"].append({"name": "cat"}),
    ],
)
def test_an_entry_that_cannot_be_used_is_left_out_with_its_reason(spoil):
    """One picture of -1 x -1 once refused a whole export."""
    data, texts = files({"bbox": [1, 1, 9, 9]})
    spoil(data)
    with pytest.warns(SceneWarning, match="left out"):
        (item,) = read_coco(data, texts)
    assert [i.box for i in item.scene.instances] == [Box(0.01, 0.0125, 0.1, 0.125)]


@pytest.mark.parametrize("write", [int, str, float, lambda number: f" {number} "])
def test_ids_are_the_same_however_they_are_written(write):
    data, texts = files({"bbox": [1, 1, 9, 9]})
    for annotation in data["annotations"]:
        annotation.update(image_id=write(9), category_id=write(18), iscrowd=write(0), segmentation=None)
    data["annotations"].append({**data["annotations"][0], "iscrowd": write(1)})
    (item,) = read_coco(data, texts)
    assert [instance.caption for instance in item.scene.instances] == ["dog"]
    (item,) = read_coco(data, texts, image_ids=[write(9)])
    assert item.image_id == 9


def test_ids_may_be_texts():
    data, _ = files({"bbox": [1, 1, 9, 9], "image_id": "a-picture", "category_id": "d"}, id="a-picture")
    data["categories"][0]["id"] = "d"
    (item,) = read_coco(data)
    assert (item.image_id, item.scene.instances[0].caption) == ("a-picture", "dog")


@pytest.mark.parametrize(
    "segmentation",
    [
        RING,
        [RING],
        [[[x, y] for x, y in zip(RING[::2], RING[1::2], strict=True)]],
        [[x, y] for x, y in zip(RING[::2], RING[1::2], strict=True)],
        [str(value) for value in RING],
        [[str(value) for value in RING]],
    ],
)
def test_polygons_in_every_spelling(segmentation):
    data, _ = files({"segmentation": [RING]})
    expected = read_coco(data)[0].scene.instances[0].mask
    data, _ = files({"segmentation": segmentation})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert read_coco(data)[0].scene.instances[0].mask == expected
    assert bool(caught) == (not isinstance(segmentation[0], list))
    assert all("brackets" in str(warning.message) for warning in caught)


def test_a_place_that_cannot_be_used_leaves_the_other():
    data, _ = files({"bbox": [1, 1, 9, 9], "segmentation": [[1, 2, 3]]})
    with pytest.warns(SceneWarning, match="3 numbers"):
        assert read_coco(data)[0].scene.instances[0].kinds == ("box",)


def test_pictures_that_share_an_id_are_never_lost_in_silence():
    data, _ = files({"bbox": [1, 1, 9, 9]}, {"bbox": [1, 1, 9, 9], "image_id": 4})
    image = data["images"][0]
    data["images"] += [{**image, "id": 4, "file_name": "front.jpg"}, {**image, "id": "4", "file_name": "back.jpg"}]
    data["images"].append(dict(image))
    with pytest.warns(SceneWarning) as caught:
        assert [item.file_name for item in read_coco(data)] == ["000009.jpg"]
    told = [str(warning.message) for warning in caught]
    assert any("'front.jpg', 'back.jpg'" in text and "left out" in text for text in told)
    assert any("again: read once" in text for text in told)


def test_a_category_of_two_names_names_nothing():
    data, _ = files({"bbox": [1, 1, 9, 9]}, {"bbox": [1, 1, 9, 9], "category_id": 1})
    data["categories"].append({"id": "18", "name": "wolf"})
    with pytest.warns(SceneWarning, match="'dog' and 'wolf'"):
        assert [i.caption for i in read_coco(data)[0].scene.instances] == ["person"]


def test_the_boxes_of_a_panoptic_file_are_read():
    data, texts = files()
    segments = [{"id": 7, "category_id": 18, "bbox": [10, 20, 50, 40], "iscrowd": 0, "area": 9}]
    data["annotations"] = [{"image_id": 9, "file_name": "000009.png", "segments_info": segments}]
    for captions in (None, texts):
        with pytest.warns(SceneWarning, match="panoptic"):
            (item,) = read_coco(data, captions)
        assert item.scene.instances[0].box == Box(0.1, 0.25, 0.6, 0.75)
    with pytest.warns(SceneWarning, match="captions file"):
        assert read_coco(texts)[0].scene.instances == ()


def test_many_small_faults_do_not_refuse_a_file():
    data, _ = files({"bbox": [1, 1, 9, 9]}, *[{"bbox": [1, 1, 0, 9]}] * 10_100)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        assert len(read_coco(data)[0].scene.instances) == 1


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
