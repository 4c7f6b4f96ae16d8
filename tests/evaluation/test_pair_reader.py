"""The pair reader: what it is taught, that it favours neither object, that it learns, and that studies go by it."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from instancediffusion.errors import SettingsError
from instancediffusion.evaluation import Seen
from instancediffusion.evaluation.orders import Overlap, in_front
from instancediffusion.projects.emoji_judge import Judge, JudgeConfig, JudgeLessons
from instancediffusion.projects.emoji_judge.judge_task import with_words
from instancediffusion.projects.emoji_judge.label_maps import lesson_of
from instancediffusion.projects.emoji_judge.network import JudgeNetwork
from instancediffusion.projects.emoji_judge.pair_reader import PairReading, pair_crop, pair_window, read_pairs
from instancediffusion.projects.emoji_judge.pair_task import (
    PairTask,
    check_pairs,
    overlapping,
    pair_loss,
    pair_windows,
)

from .conftest import small_world, taught

SMALL = JudgeConfig(side_px=64, crop_px=32, pair_px=48, pair_widths=(16, 24, 32))
LESSONS = JudgeLessons(
    side_px=64, pool=300, fresh=2, crops=24, first_seed=1000, jitter=0.03, noise=0.02, coarse=0.0, blur=0.0
)


@pytest.fixture(scope="module")
def crowded():
    return small_world(min_objects=2, max_objects=2, min_scale=0.45, max_scale=0.7, overlap_share=1.0)


@pytest.fixture(scope="module")
def lessons(crowded):
    found = [lesson_of(crowded.sample(k), with_words(SMALL, crowded)) for k in range(40)]
    return [lesson for lesson in found if overlapping(lesson)]


@pytest.fixture(scope="module")
def trained(crowded):
    return taught(PairTask(with_words(SMALL, crowded), LESSONS, crowded, batch_size=16, half=False), 200, 8e-3).eval()


def test_lessons_say_what_was_drawn_in_front(crowded):
    """The world paints the farthest first: of two that overlap the one with the larger z-order is in front."""
    seen = 0
    for seed in range(30):
        sample = crowded.sample(seed)
        lesson = lesson_of(sample, with_words(SMALL, crowded))
        for pair in overlapping(lesson):
            depth = [sample.instances[number].z_order for number in (pair.first, pair.second)]
            assert pair.front == (depth[0] > depth[1])
            seen += 1
    assert seen > 10


def test_windows_hold_both_boxes_and_the_truth_of_them(lessons):
    images = [Image.fromarray(lesson.image) for lesson in lessons]
    exact = dataclasses.replace(LESSONS, jitter=0.0, crops=40)
    crops, targets = pair_windows(lessons, images, SMALL, exact, np.random.default_rng(0))
    shown, whole = targets.mask[:, :2], targets.mask[:, 2:]
    assert (shown <= whole + 1e-6).all() and 10 < targets.front.sum() < 30  # either role
    boxes = torch.nn.functional.avg_pool2d(crops[:, 3:], 2)
    assert (whole * (boxes == 0)).sum() < 0.03 * whole.sum()
    shared = whole.prod(1)
    owned = (shown * shared[:, None]).sum((2, 3))
    assert ((owned[:, 0] > owned[:, 1]) == (targets.front > 0.5)).all()


def test_perfect_readings_lose_nothing(lessons):
    images = [Image.fromarray(lesson.image) for lesson in lessons]
    _, targets = pair_windows(lessons, images, SMALL, LESSONS, np.random.default_rng(0))
    owner = (targets.mask[:, 0] - targets.mask[:, 1]) * 20
    loss, numbers = pair_loss(PairReading(owner, (targets.mask - 0.5) * 40), targets)
    worse, wrong = pair_loss(PairReading(-owner, (targets.mask - 0.5) * 40), targets)
    assert numbers["pair_right"] == 1 and wrong["pair_right"] == 0
    assert loss < worse / 10  # it is not 0: pixels on outlines are of both


def test_neither_object_is_favoured(lessons):
    """Exchanging the two objects exchanges all that is said of them, whatever the weights are."""
    torch.manual_seed(0)
    network = JudgeNetwork(SMALL).pairs.eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    image = Image.fromarray(lessons[0].image)
    boxes = lessons[0].boxes[:2].astype(np.float64)
    crop = pair_crop(image, boxes, pair_window(boxes, image), SMALL.pair_px)[None]
    with torch.inference_mode():
        one, other = network(crop), network(crop[:, [0, 1, 2, 4, 3]])
        torch.testing.assert_close(other.owner, -one.owner)
        torch.testing.assert_close(other.mask, one.mask[:, [1, 0, 3, 2]])
        torch.testing.assert_close(other.front, -one.front)


def test_it_learns_who_is_in_front(trained, crowded):
    """Held-out composites; where the pictures are of one grey, nothing is known and neither is said to lead."""
    config = with_words(SMALL, crowded)
    found = check_pairs(trained, config, crowded, 60, 7)
    assert found["pairs"] > 30 and found["undecided"] < 0.5, found
    assert found["order"] / (1 - found["undecided"]) > 0.7, found
    leads = []
    for seed in range(7, 67):
        lesson = lesson_of(crowded.sample(seed), config)
        pairs = [lesson.boxes[[pair.first, pair.second]].astype(np.float64) for pair in overlapping(lesson)]
        with torch.inference_mode():
            for sheet in (lesson.image, np.full_like(lesson.image, 128)):
                leads.append([abs(one.lead) for one in read_pairs(trained, Image.fromarray(sheet), pairs) if one])
    shown, grey = (np.mean(np.concatenate(leads[k::2])) for k in (0, 1))
    assert shown > 2 * grey, (shown, grey)


def test_a_judge_says_of_every_two_boxes_that_overlap(trained, crowded, tmp_path):
    config = with_words(SMALL, crowded)
    torch.manual_seed(1)
    network = JudgeNetwork(config)
    network.pairs.load_state_dict(trained.state_dict())
    with torch.no_grad():
        network.reader.head.bias[0] = -20  # it takes every box for an object
    judge = Judge(network)
    judge.save(tmp_path / "judge")
    sample = next(crowded.sample(k) for k in range(50) if len(overlapping(lesson_of(crowded.sample(k), config))) == 1)
    boxes = np.array([item.box for item in sample.instances], float)
    read = judge.read([sample.image], [boxes])[0]
    seen, again = (one.with_overlaps(sample.image, read) for one in (judge, Judge.load(tmp_path / "judge")))
    assert seen.overlaps and seen.overlaps == again.overlaps
    assert not read.overlaps and seen.instances == read.instances and np.array_equal(seen.labels, read.labels)
    without = Judge(JudgeNetwork(dataclasses.replace(config, pair_widths=())))
    assert without.network.pairs is None and not without.with_overlaps(sample.image, read).overlaps
    with pytest.raises(SettingsError, match="pair_widths"):
        PairTask(without.config, LESSONS, crowded, batch_size=2)


def test_the_order_is_what_the_pair_reader_says():
    pair = Overlap(0.2, 0.7, 50, lead=0.8)
    assert pair.front == 0 and pair.exchanged.front == 1 and pair.exchanged.exchanged == pair
    assert in_front(0, pair)["right"] == 1 and in_front(1, pair)["right"] == 0
    assert Overlap(0.2, 0.7, 50).front == 1 and Overlap(0.5, 0.5, 9, lead=0.05).front is None
    assert Seen(np.zeros((4, 4), np.uint8), ()).overlaps == {}
