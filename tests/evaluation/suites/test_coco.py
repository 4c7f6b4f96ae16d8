"""Average precision: against pycocotools' own way from files, against numbers worked out by hand, with bad pictures."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from instancediffusion.errors import SettingsError
from instancediffusion.evaluation.suites import run_suite
from instancediffusion.evaluation.suites.categories import label_of
from instancediffusion.evaluation.suites.coco import CocoSuite
from instancediffusion.evaluation.suites.detectors import FileDetector
from instancediffusion.evaluation.suites.suite_run import read_cases
from instancediffusion.geometry import rle_encode

from .conftest import KnowingDetector, case, models, seen, told


def test_hand_computed_precision_and_recall(pictures):
    # Two dogs; one is found exactly, one not at all, and a surer finding is beside both: the precision is 1/2 up to a
    # recall of 1/2, where 51 of the 101 recalls lie; so AP = 51/101 * 1/2, AR = 1/2.
    cases = [case("a", told("dog", 0, 0, 40, 40)), case("b", told("dog", 50, 50, 90, 90))]
    detector = KnowingDetector({"a": [seen("dog", 0, 0, 40, 40, 0.5)], "b": [seen("dog", 0, 0, 20, 20, 0.9)]})
    result = run_suite(CocoSuite(20), cases, pictures("a", "b"), models(detector=detector))
    for kind in ("bbox", "segm"):
        scores = result.made.scores
        assert scores[f"{kind}_ap"].value == pytest.approx(51 / 101 / 2)
        assert scores[f"{kind}_ap50"].value == pytest.approx(51 / 101 / 2)
        assert scores[f"{kind}_ar"].value == pytest.approx(1 / 2)
        assert scores[f"{kind}_ap"].low == 0 and scores[f"{kind}_ap"].high == pytest.approx(1)  # of a twice, of b twice
        assert scores[f"{kind}_ap"].count == 2


def random_set(rng, pictures=12):
    """A COCO file of photographs of different sizes, crowds among them, and what a detector says of pictures made."""
    images, annotations, results = [], [], []
    for number in range(1, pictures + 1):
        width, height = int(rng.integers(60, 200)), int(rng.integers(60, 200))
        images.append({"id": number, "file_name": f"{number:012d}.jpg", "width": width, "height": height})
        for _ in range(int(rng.integers(1, 6))):
            x, y = int(rng.integers(0, width // 2)), int(rng.integers(0, height // 2))
            w, h = int(rng.integers(8, width - x)), int(rng.integers(8, height - y))
            mask = np.zeros((height, width), bool)
            mask[y : y + h, x : x + w] = True
            mask[y : y + h // 3, x : x + w // 3] = False
            rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
            box = [int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
            rle = {"size": [height, width], "counts": rle_encode(mask)}
            category, crowd = int(rng.choice([1, 3, 18])), int(rng.random() < 0.15)
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": category, "bbox": box}
            annotations.append(entry | {"segmentation": rle, "iscrowd": crowd, "area": int(mask.sum())})
            for _ in range(int(rng.integers(0, 3))):
                shift = rng.integers(-6, 7, 2)
                moved = np.roll(mask, tuple(shift), (0, 1))
                label = category if rng.random() < 0.8 else int(rng.choice([1, 3, 18]))
                x0, y0 = np.clip([box[0] + shift[1], box[1] + shift[0]], 0, None)
                w, h = min(box[2], width - x0), min(box[3], height - y0)
                found = {"image_id": number, "category_id": label, "bbox": [int(x0), int(y0), int(w), int(h)]}
                score = float(rng.random())
                results.append(found | {"score": score, "segmentation": {**rle, "counts": rle_encode(moved)}})
    names = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}, {"id": 18, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": names}, results


def pycocotools_says(truth, results, kind):
    with contextlib.redirect_stdout(io.StringIO()):
        left = COCO()
        left.dataset = json.loads(json.dumps(truth))
        for one in left.dataset["annotations"]:
            one["segmentation"]["counts"] = one["segmentation"]["counts"].encode()
        left.createIndex()
        found = [{k: v for k, v in one.items() if kind == "segm" or k != "segmentation"} for one in results]
        found = [{k: v for k, v in one.items() if kind == "bbox" or k != "bbox"} for one in found]
        count = COCOeval(left, left.loadRes(found), kind)
        count.evaluate()
        count.accumulate()
        count.summarize()
    return dict(zip(("ap", "ap50", "ap75", "small", "medium", "large"), count.stats, strict=False)) | {
        "ar": count.stats[8]
    }


def test_equals_pycocotools_on_the_same_files(tmp_path, pictures):
    truth, results = random_set(np.random.default_rng(5))
    (tmp_path / "instances_val.json").write_text(json.dumps(truth))
    (tmp_path / "predictions.json").write_text(json.dumps(results))
    from PIL import Image

    folder = tmp_path / "made"
    folder.mkdir()
    for image in truth["images"]:
        Image.new("RGB", (image["width"], image["height"])).save(folder / image["file_name"].replace("jpg", "png"))
    suite = CocoSuite(10)
    cases = read_cases(suite, tmp_path / "instances_val.json")
    names = {one["id"]: one["name"] for one in truth["categories"]}
    detector = FileDetector(tmp_path / "predictions.json", names)
    result = run_suite(suite, cases, folder, models(detector=detector), scenes=tmp_path / "instances_val.json")
    (by,) = result.made.by.values()
    for kind in ("bbox", "segm"):
        expected = pycocotools_says(truth, results, kind)
        for name in ("ap", "ap50", "ap75", "ar"):
            one = result.made.scores[f"{kind}_{name}"]
            assert one.value == pytest.approx(expected[name], abs=1e-12)
            assert one.low <= one.value <= one.high and one.low < one.high
        for size in by:
            assert by[size][f"{kind}_ap"].value == pytest.approx(expected[size], abs=1e-12)
    assert any(one["iscrowd"] for one in truth["annotations"])
    plain = run_suite(CocoSuite(0), cases, folder, models(detector=detector))  # without the file: no crowd is ignored
    assert plain.made.scores["bbox_ap"].value < result.made.scores["bbox_ap"].value


def test_a_bad_picture_is_named_and_the_others_are_scored(pictures):
    cases = [case(name, told("dog", 0, 0, 40, 40)) for name in "abcd"]
    found = {name: [seen("dog", 0, 0, 40, 40)] for name in "abd"}
    folder = pictures("a", "c", "d")
    (folder / "b.png").write_bytes(b"no picture")
    result = run_suite(CocoSuite(5), cases, folder, models(detector=KnowingDetector(found)), real=None)
    assert result.made.pictures == 2 and result.made.scores["bbox_ap"].value == pytest.approx(1)
    assert [failure.path.rpartition("/")[2] for failure in result.failures] == ["b.png", "c.png"]
    assert "cannot be read" in result.failures[0].reason and "KeyError" in result.failures[1].reason


def test_real_pictures_are_the_bound_beside(pictures, tmp_path):
    cases = [case("a", told("dog", 0, 0, 40, 40)), case("b", told("dog", 0, 0, 40, 40))]
    good, bad = [seen("dog", 0, 0, 40, 40)], [seen("cat", 0, 0, 40, 40)]

    class ByColour(KnowingDetector):
        def __call__(self, image, name):
            return good if image.getpixel((0, 0)) == (255, 255, 255) else bad

    from PIL import Image

    (tmp_path / "real").mkdir()
    for name in "ab":
        Image.new("RGB", (50, 50), "white").save(tmp_path / "real" / f"{name}.jpg")
    result = run_suite(CocoSuite(0), cases, pictures("a"), models(detector=ByColour({})), real=tmp_path / "real")
    assert result.made.scores["bbox_ap"].value == 0 and result.real.scores["bbox_ap"].value == pytest.approx(1)
    assert (result.real.pictures, result.facts["scenes without a picture"]) == (1, 1)  # of the same scenes


def test_classes_the_detector_does_not_know_are_told_not_missed(pictures):
    cases = [case("a", told("dog", 0, 0, 40, 40), told("unicorn", 50, 50, 90, 90))]
    detector = KnowingDetector({"a": [seen("dog", 0, 0, 40, 40)]})
    result = run_suite(CocoSuite(0), cases, pictures("a"), models(detector=detector))
    assert result.made.scores["bbox_ap"].value == pytest.approx(1)
    assert {"unicorn": 1} in result.facts.values()
    with pytest.raises(SettingsError, match="of a class that the detector knows"):
        run_suite(CocoSuite(0), cases, pictures("a"), models(detector=KnowingDetector({}, ["bus"])))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Dog", "dog"),
        ("a big hot dog on a plate", "hot dog"),
        ("hotdog stand", None),
        ("a dog and a cat", None),
        ("motorbike", "motorcycle"),
        ("TV_monitor", "tv"),
        ("tvmonitor", "tv"),
    ],
)
def test_names_of_classes(text, label):
    assert label_of(text, ["dog", "hot dog", "cat", "motorcycle", "tv"]) == label


@pytest.mark.parametrize(
    ("content", "told_"),
    [
        ("{", "no JSON"),
        ('{"a": 1}', "no list of COCO results"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5], "score": 0.5}]', "entry 0: bbox"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": NaN}]', "entry 0: bbox"),
        ('[{"image_id": 1, "category_id": 9, "bbox": [0, 0, 5, 5], "score": 0.5}]', "category_id 9 has no name"),
        ('[{"image_id": 1, "category_id": 1, "score": 0.5}]', "has no bbox"),
    ],
)
def test_results_files_that_are_none(tmp_path, content, told_):
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(SettingsError, match=told_):
        FileDetector(tmp_path / "r.json", {1: "dog"})
