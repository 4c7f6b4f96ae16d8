"""COCO-MIG: by hand, on painted pictures, with the benchmark's forms of files."""

import json

import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2hsv

from instancediffusion.errors import SettingsError
from instancediffusion.evaluation.suites import run_suite, suite_of
from instancediffusion.evaluation.suites.mig import to_hsv
from instancediffusion.evaluation.suites.phrase_models import BoxNetwork, PhraseNetwork
from tests.projects.overlap_study.tiny_judges import tiny_dino, tiny_sam

from .conftest import models

ANNOTATIONS = """
a red car, a red car and a blue cup:
  a red car: [[0.0, 0.0, 0.4, 0.4], [0.05, 0.0, 0.45, 0.4]]
  a blue cup: [[0.5, 0.5, 0.9, 0.9]]
  coco_id: 139
a green dog and a red dog:
  a green dog: [[0.0, 0.5, 0.4, 0.9]]
  a red dog: [[0.5, 0.5, 0.9, 0.9]]
  coco_id: 285
"""


class KnowingPhrases:
    """Finds what it was told is in a picture, whose first pixel says which picture it is."""

    def __init__(self, found):
        self.found = found

    def __call__(self, image, phrases):
        boxes = self.found[image.getpixel((99, 0))].get(phrases[0], [])
        return np.array([box for box, _ in boxes]).reshape(-1, 4), np.array([[score] for _, score in boxes]).reshape(
            -1, 1
        )

    def describe(self):
        return {"name": "knows"}


class WholeBoxes:
    """Outlines all of a box."""

    def __call__(self, image, boxes):
        y, x = (np.mgrid[: image.height, : image.width] + 0.5) / 100
        inside = [(x > x0) & (x < x1) & (y > y0) & (y < y1) for x0, y0, x1, y1 in boxes]
        return np.where(inside, 1.0, -1.0).astype(np.float32)

    def describe(self):
        return {"name": "whole"}


@pytest.fixture
def folder(tmp_path):
    for name, mark, blocks in (
        (
            "a red car, a red car and a blue cup_0_139",
            1,
            [((0, 0, 45, 40), (220, 20, 20)), ((50, 50, 90, 90), (30, 40, 200))],
        ),
        ("whatever_285", 2, [((0, 50, 40, 90), (200, 20, 20)), ((50, 50, 90, 58), (220, 20, 20))]),
    ):
        pixels = np.full((100, 100, 3), 128, np.uint8)
        for (x0, y0, x1, y1), colour in blocks:
            pixels[y0:y1, x0:x1] = colour
        pixels[0, 99] = mark
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    (tmp_path / "anno.yaml").write_text(ANNOTATIONS)
    return tmp_path


def test_by_hand(folder):
    suite = suite_of("coco-mig")
    cases = suite.cases(folder / "anno.yaml")
    assert [(one.name, one.group) for one in cases] == [("139", "L3"), ("285", "L2")]
    car = ([0.0, 0.0, 0.4, 0.4], 0.9)
    found = {
        (1, 1, 1): {"car": [car, ([0.0, 0.0, 0.39, 0.4], 0.8)], "cup": [([0.5, 0.5, 0.9, 0.9], 0.2)]},  # no sure cup
        (2, 2, 2): {"dog": [([0.0, 0.5, 0.4, 0.9], 0.5), ([0.5, 0.5, 0.9, 0.9], 0.5)]},
    }
    result = run_suite(suite, cases, folder, models(phrases=KnowingPhrases(found), segmenter=WholeBoxes()))
    scores = {name: one.value for name, one in result.made.scores.items()}
    # One car is found, and fits both boxes: by 1 and by 35/45. The green dog is red; a fifth of the red one is.
    assert scores["published_success"] == pytest.approx(3 / 5) and scores["success"] == pytest.approx(2 / 5)
    assert scores["published_miou"] == pytest.approx((1 + 35 / 45 + 0 + 0 + 1) / 5)
    assert scores["placed"] == pytest.approx(3 / 5) and scores["picture_success"] == 0
    assert result.made.by["instances"]["L3"]["published_success"].value == pytest.approx(2 / 3)


def test_both_forms_of_the_annotations_are_one(folder):
    suite = suite_of("coco-mig")
    (folder / "anno.json").write_text(
        json.dumps({"285": {"caption": "a green dog and a red dog", "segment": [
            {"label": "green dog", "bbox": [0.0, 0.5, 0.4, 0.9]}, {"label": "red dog", "bbox": [0.5, 0.5, 0.9, 0.9]}]}})
    )  # fmt: skip
    (one,), (_, other) = suite.cases(folder / "anno.json"), suite.cases(folder / "anno.yaml")
    assert (one.name, one.group, one.example.scene.prompt) == (other.name, other.group, other.example.scene.prompt)
    assert [i.box for i in one.example.scene.instances] == [i.box for i in other.example.scene.instances]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[1, 2]", "is not the benchmark"),
        ("a: {a red car: [[0, 0, 2, 1]]}", "not x0, y0, x1, y1 in 0..1"),
        ("a: {a red car: [[.5, 0, .1, 1]]}", "not x0, y0, x1, y1 in 0..1"),
        ("a: {a pink car: [[0, 0, 1, 1]]}", "no colour and class"),
        ("a: {coco_id: 3}", "has no instance"),
        ("a: 5", "has no boxes"),
        ("a: [", "cannot be read"),
        ("!!python/object/apply:os.getcwd []", "cannot be read"),
    ],
)
def test_bad_annotations_are_told(tmp_path, text, told):
    (tmp_path / "anno.yaml").write_text(text)
    with pytest.raises(SettingsError, match=told):
        suite_of("coco-mig").cases(tmp_path / "anno.yaml")


def test_hue_saturation_value():
    pixels = np.random.default_rng(3).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    expected = rgb2hsv(pixels) * [180, 255, 255]
    difference = np.abs(to_hsv(pixels) - expected)
    difference[..., 0] = np.minimum(difference[..., 0], 180 - difference[..., 0])
    assert difference.max() <= 0.5 + 1e-6
    assert to_hsv(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]], np.uint8)).tolist() == [
        [[0, 255, 255], [60, 255, 255], [120, 255, 255], [0, 0, 9]]
    ]


def test_with_whole_networks_of_random_weights(folder):
    suite = suite_of("coco-mig")
    cases = suite.cases(folder / "anno.yaml")
    phrases, segmenter = PhraseNetwork(str(tiny_dino(folder)), surest=True), BoxNetwork(str(tiny_sam(folder)))
    result = run_suite(suite, cases, folder, models(phrases=phrases, segmenter=segmenter))
    assert result.made.pictures == 2 and not result.failures
    image = Image.open(folder / "whatever_285.png").convert("RGB")
    mean = PhraseNetwork(str(folder / "dino"))(image, ["red dog"])[1]
    assert (phrases(image, ["red dog"])[1] >= mean).all() and (phrases(image, ["red dog"])[1] > mean).any()
