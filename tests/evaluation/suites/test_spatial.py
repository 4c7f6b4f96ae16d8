"""T2I-CompBench's spatial scores: by hand, and where the published scripts give another number."""

import numpy as np
import pytest
import torch
from PIL import Image

from instancediffusion.annotation.models.depth import NearDepth
from instancediffusion.errors import SettingsError
from instancediffusion.evaluation.suites import run_suite, suite_of
from instancediffusion.evaluation.suites.found_pictures import find_pictures
from instancediffusion.evaluation.suites.spatial import flat_position, relation_of
from tests.annotation.tiny_models import depth_anything

from .conftest import case, models


class Two:
    """Finds two objects, boxes in fractions."""

    def __init__(self, first, second, sure=(0.8, 0.6)):
        self.boxes, self.sure = [first, second], sure

    def __call__(self, image, phrases):
        there = [k for k in range(2) if self.boxes[k] is not None]
        scores = [[self.sure[k] * (k == index) for index in range(2)] for k in there]
        return np.array([self.boxes[k] for k in there], float).reshape(-1, 4), np.array(scores).reshape(-1, 2)

    def describe(self):
        return {"name": "two"}


class Ramp:
    """Everything on the right is nearer."""

    def __call__(self, image):
        return np.tile(np.arange(image.width, dtype=float), (image.height, 1))

    def describe(self):
        return {"name": "ramp"}


def scores_of(tmp_path, prompt, first, second, size=(200, 200), sure=(0.8, 0.6)):
    suite = suite_of("t2i-spatial")
    (tmp_path / "prompts.txt").write_text(prompt + "\n")
    Image.new("RGB", size).save(tmp_path / f"{prompt}_000007.png")
    cases = suite.cases(tmp_path / "prompts.txt")
    result = run_suite(suite, cases, tmp_path, models(phrases=Two(first, second, sure), depth=Ramp()))
    return {name: one.value for name, one in result.made.scores.items()}


def test_sides_by_hand(tmp_path):
    left, right = [0.0, 0.4, 0.3, 0.7], [0.6, 0.4, 0.9, 0.7]
    assert scores_of(tmp_path, "a dog on the left of a car", left, right)["flat"] == pytest.approx(0.35 + 0.5)
    assert scores_of(tmp_path, "a dog on the right of a car", left, right)["flat"] == 0  # .35 in all: below a half
    assert scores_of(tmp_path, "a dog on the top of a car", left, right)["flat"] == 0
    assert scores_of(tmp_path, "a dog on the left of a car", left, None) == {"flat": 0, "published_flat": 0}
    # Boxes that overlap by an IoU of 1/3 have a position of .1 / (1/3).
    close = scores_of(tmp_path, "a dog on the left of a car", [0.0, 0.0, 0.4, 0.4], [0.2, 0.0, 0.6, 0.4])
    assert close["flat"] == close["published_flat"] == pytest.approx(0.35 + 0.3 / 2)


def test_near_takes_both_distances(tmp_path):
    ends = scores_of(tmp_path, "a dog next to a car", [0.0, 0.4, 0.1, 0.6], [0.9, 0.4, 1.0, 0.6])
    assert ends["published_flat"] == pytest.approx(0.35 + 0.5)
    assert ends["flat"] == pytest.approx(0.35 + 150 / (0.9 * 512) / 2)
    assert flat_position("near", np.array([0, 0, 10, 10]), np.array([100, 100, 110, 110])) == 1


def test_on_top_of_counts(tmp_path):
    above = scores_of(tmp_path, "a dog on top of a car", [0.4, 0.0, 0.6, 0.3], [0.4, 0.6, 0.6, 0.9])
    assert (above["published_flat"], above["flat"]) == (0, pytest.approx(0.85))


def test_the_published_depth_is_that_of_transposed_places(tmp_path):
    # What is on the right is nearer. The first lies right of the second and above it; of equal IoU with it as below.
    first, second = [0.3, 0.2, 0.7, 0.8], [0.2, 0.3, 0.6, 0.9]
    found = scores_of(tmp_path, "a mouse in front of a key", first, second)
    overlap = 0.3 * 0.5 / (2 * 0.24 - 0.3 * 0.5)
    assert found["deep"] == pytest.approx(0.35 + overlap / 0.5 / 2)
    assert found["published_deep"] == pytest.approx(0.35)
    behind = scores_of(tmp_path, "a mouse behind a key", first, second)
    assert (behind["deep"], behind["published_deep"]) == (pytest.approx(0.35), pytest.approx(0.35 + overlap / 0.5 / 2))
    apart = scores_of(tmp_path, "a mouse in front of a key", [0.6, 0.6, 0.9, 0.9], [0.0, 0.0, 0.3, 0.3])
    assert apart["deep"] == pytest.approx(0.35)


@pytest.mark.parametrize(
    ("prompt", "relation"),
    [
        ("A hot dog on the left of the red car.", ("hot dog", "on the left of", "red car")),
        ("a fish is hidden by a stone", ("fish", "hidden", "stone")),
        ("a man on side of an oak", ("man", "on side of", "oak")),
        ("a dog", None),
        ("behind a dog", None),
    ],
)
def test_relations_of_prompts(prompt, relation):
    assert relation_of(prompt) == relation


def test_prompts_without_relations_are_told(tmp_path):
    (tmp_path / "prompts.txt").write_text("a dog\n\na cat\n")
    suite = suite_of("t2i-spatial")
    Image.new("RGB", (32, 32)).save(tmp_path / "a dog_000001.png")
    with pytest.raises(SettingsError, match="no prompt states a relation"):
        run_suite(suite, suite.cases(tmp_path / "prompts.txt"), tmp_path, models())


def test_pictures_are_named_by_prompts_or_scenes(tmp_path):
    names = (
        "A dog on the left of a car._000031.png",
        "a_dog_on_the_left_of_a_car.png",
        "My_Scene.png",
        "My_Scene_4.png",
    )
    for name in names:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "prompts.txt").write_text("a dog on the left of a car\n")
    suite = suite_of("t2i-spatial")
    (found,) = find_pictures(suite.cases(tmp_path / "prompts.txt"), tmp_path, suite.picture_of)
    assert [path.name for path in found] == list(names[:2])
    other = suite_of("t2i-spatial")
    assert other.cases(tmp_path / "scenes.json") is None
    (found,) = find_pictures([case("My_Scene")], tmp_path, other.picture_of)
    assert [path.name for path in found] == list(names[2:])


def test_depth_of_a_whole_network_of_random_weights(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 90, 3)).astype(np.uint8)
    depth = NearDepth(str(depth_anything(tmp_path / "depth")), "cpu")
    with torch.inference_mode():
        near = depth(Image.fromarray(pixels))
    assert near.shape == (40, 90) and np.isfinite(near).all() and near.std() > 0
