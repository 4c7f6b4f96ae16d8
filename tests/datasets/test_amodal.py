"""Amodal data sets as they are published: whole and visible masks in whatever spelling, and the order they tell."""

import json

import numpy as np
import pytest
from tests.datasets.test_datasets import picture

from instancediffusion.annotation import AnnotationSettings, Stages, annotate
from instancediffusion.datasets import open_dataset
from instancediffusion.geometry import rle_encode

WHOLE = {"front": [4, 4, 20, 4, 20, 20, 4, 20], "back": [10, 10, 34, 10, 34, 26, 10, 26]}


def array(x0, y0, x1, y1):
    found = np.zeros((30, 40), bool)
    found[y0:y1, x0:x1] = True
    return found


FRONT, BACK = array(4, 4, 20, 20), array(10, 10, 34, 26)
SEEN = {"size": [30, 40], "counts": rle_encode(BACK & ~FRONT)}
CORNERS = [20, 10, 34, 10, 34, 26, 10, 26, 10, 20, 20, 20]  # the same as a polygon


def cocoa():
    regions = [
        {"name": "back", "segmentation": WHOLE["back"], "order": 2, "visible_mask": SEEN, "occlude_rate": 0.3},
        {"name": "front", "segmentation": WHOLE["front"], "order": 1, "occlude_rate": 0},
        "no region",
    ]
    return {"annotations": [{"id": 1, "image_id": 7, "regions": regions, "size": 2}]}


def with_keys(whole, box, seen, value):
    common = {"image_id": 7, "iscrowd": 0}
    back = {"id": 1, "category_id": 1, whole: [WHOLE["back"]], box: [10, 10, 24, 16], seen: value}
    front = {"id": 2, "category_id": 2, whole: [WHOLE["front"]], box: [4, 4, 16, 16], seen: [WHOLE["front"]]}
    names = [{"id": 1, "name": "back"}, {"id": 2, "name": "front"}]
    return {"annotations": [common | back, common | front], "categories": names}


@pytest.mark.parametrize(
    "data",
    [
        cocoa(),
        with_keys("a_segm", "a_bbox", "i_segm", [CORNERS]),
        with_keys("segmentation", "bbox", "inmodal_seg", SEEN),
        with_keys("segmentation", "bbox", "visible_mask", SEEN),
        with_keys("segmentation", "bbox", "visible", SEEN),
    ],
    ids=["COCOA", "KINS 2020", "KINS", "D2SA", "ours"],
)
def test_published_amodal_sets_tell_whole_and_visible_masks_and_so_the_order(data, tmp_path):
    picture(tmp_path / "a.png")
    image = {"id": 7, "file_name": "a.png", "width": 40, "height": 30}
    (tmp_path / "COCO_amodal_val2014.json").write_text(json.dumps({"images": [image]} | data))
    found = open_dataset(tmp_path / "COCO_amodal_val2014.json")[0]
    assert found.categories == ("back", "front")
    back, front = found.scene.instances
    assert (back.mask.array == BACK).all() and (front.mask.array == FRONT).all()
    assert (found.visible[0].array == (BACK & ~FRONT)).all() and (found.visible[1].array == FRONT).all()
    (ordered,) = annotate([found], Stages(), AnnotationSettings())
    assert [instance.z_order for instance in ordered.scene.instances] == [0, 1]
    (left,) = annotate([found], Stages(), AnnotationSettings(order="none"))
    assert [instance.z_order for instance in left.scene.instances] == [None, None]
