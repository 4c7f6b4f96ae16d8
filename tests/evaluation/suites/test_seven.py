"""7Bench: the file in the package, and the layout score by hand."""

import numpy as np
import pytest
from PIL import Image

from instancediffusion.errors import SettingsError
from instancediffusion.evaluation.suites import run_suite, suite_of
from instancediffusion.evaluation.suites.found_pictures import find_pictures
from instancediffusion.evaluation.suites.phrase_models import PhraseNetwork
from tests.projects.overlap_study.tiny_judges import tiny_owl

from .conftest import models

CSV = 'id,category,prompt,obj1,bbox1,obj2,bbox2\n000,pairs,Two dogs,dog,"0,0,255,255",dog,"256,256,511,511"\n'
CSV += '001,single,A cat and a cup,cat,"0,0,255,255",cup,"256,0,511,255"\n'


class Knowing:
    """Candidates in pixels of 512, each of one phrase."""

    def __init__(self, *found):
        self.found = found

    def __call__(self, image, phrases):
        boxes = np.array([box for _, box, _ in self.found], float).reshape(-1, 4) / 512
        return boxes, np.array([[s * (name == p) for p in phrases] for name, _, s in self.found]).reshape(
            -1, len(phrases)
        )

    def describe(self):
        return {"name": "knows"}


def scores_of(tmp_path, number, *found):
    suite = suite_of("7bench")
    (tmp_path / "bench.csv").write_text(CSV)
    case = suite.cases(tmp_path / "bench.csv")[number]
    Image.new("RGB", (256, 256)).save(tmp_path / f"{case.name}_3.png")
    result = run_suite(suite, [case], tmp_path, models(phrases=Knowing(*found)))
    return {name: one.value for name, one in result.made.scores.items()}


def test_the_file_of_the_package():
    cases = suite_of("7bench").cases(None)
    assert len(cases) == 224 and len({case.name for case in cases}) == 224
    groups = [case.group for case in cases]
    assert {groups.count(group) for group in groups} == {32} and len(set(groups)) == 7
    first = cases[0].example.scene
    assert first.prompt == "A rose" and first.instances[0].box.xyxy == tuple(v / 512 for v in (175, 108, 348, 431))


def test_what_is_not_detected_is_at_least_zero_as_published(tmp_path):
    half = scores_of(tmp_path, 1, ("cat", (0, 0, 255.5, 255.5), 0.9))
    # The share is 1 at k = 0 and 1/2 from .1 on: the area is 1/2 and half of the first tenth's step.
    assert half["published_layout"] == pytest.approx(0.5 + 0.05 * 0.5)
    assert half["miou"] == pytest.approx(255.5**2 / 256**2 / 2) and half["accuracy"] == 0.5
    none = scores_of(tmp_path, 1)
    assert (none["published_layout"], none["miou"]) == (0, 0)


def test_the_best_detection_flatters_as_published(tmp_path):
    found = [("cat", (300, 300, 400, 400), 0.9), ("cat", (0, 0, 256, 256), 0.11), ("cup", (256, 0, 512, 256), 0.8)]
    scores = scores_of(tmp_path, 1, *found)
    # 1 up to k = .9; 0 at k = 1, since both ends of a box count as pixels.
    assert scores["published_layout"] == pytest.approx(0.95) and scores["miou"] == pytest.approx(1 / 2)


def test_objects_of_one_name_are_all_kept(tmp_path):
    scores = scores_of(tmp_path, 0, ("dog", (256, 256, 511.5, 511.5), 0.9))
    assert scores["published_layout"] == pytest.approx(1)  # the first dog is forgotten
    assert scores["accuracy"] == 1 / 2
    both = scores_of(tmp_path, 0, ("dog", (256, 256, 512, 512), 0.5), ("dog", (0, 0, 256, 256), 0.6))
    assert both["miou"] == pytest.approx(1)


def test_pictures_in_folders_of_the_benchmark(tmp_path):
    suite = suite_of("7bench")
    for name in (
        "000_A rose/7.jpg",
        "000_A rose/12.jpg",
        "000_A rose/7_bboxes.png",
        "001.png",
        "002_5.png",
        "note.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = find_pictures(suite.cases(None)[:4], tmp_path, suite.picture_of)
    assert [[path.name for path in one] for one in found] == [["12.jpg", "7.jpg"], ["001.png"], ["002_5.png"], []]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,b\n1,2\n", "has no columns"),
        ('id,prompt,obj1,bbox1\n0,x,dog,"1,2,3"\n', "line 2: bbox1: '1,2,3' is not"),
        ('id,prompt,obj1,bbox1\n0,x,dog,"1,2,900,3"\n', "is no box on 512"),
        ("id,prompt,obj1,bbox1\n0,x,,\n", "line 2: needs"),
    ],
)
def test_other_files_are_refused(tmp_path, text, told):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(SettingsError, match=told):
        suite_of("7bench").cases(tmp_path / "x.csv")


def test_with_a_whole_network_of_random_weights(tmp_path):
    suite = suite_of("7bench")
    case = suite.cases(None)[8]
    Image.new("RGB", (96, 64), (200, 30, 30)).save(tmp_path / f"{case.name}.png")
    result = run_suite(suite, [case], tmp_path, models(phrases=PhraseNetwork(str(tiny_owl(tmp_path)))))
    assert result.made.pictures == 1 and 0 <= result.made.scores["miou"].value <= 1
