"""Constructed pictures whose scores are known."""

import numpy as np
import pytest
from pycocotools import mask as coco

from instancediffusion.evaluation import InstanceMetrics, TrueInstance, Truth, match, score_picture, truth_of_sample
from instancediffusion.evaluation.scores import mask_iou

from .conftest import blocks, seen_of


def asked(name, x0, y0, x1, y1, told=("box",), **more):
    visible = np.zeros((100, 100), bool)
    visible[y0:y1, x0:x1] = True
    box = np.array([x0, y0, x1, y1]) / 100
    return TrueInstance(name, told=told, box=box, visible=visible, **more)


def test_exact_picture_has_full_marks():
    truth = Truth((asked("a", 10, 10, 40, 40, ("box", "mask")), asked("b", 50, 50, 90, 90, ("box", "mask"))))
    scores, extra = score_picture(blocks(("a", 10, 10, 40, 40), ("b", 50, 50, 90, 90)), truth)
    assert extra == 0
    for score in scores:
        assert score.as_asked and score.kind_right and not score.missed
        assert score.box_iou == pytest.approx(1) and score.mask_iou == 1
        assert score.colour_right is None and score.point_inside is None


def test_box_moved_by_half_its_width():
    (score,), _ = score_picture(blocks(("a", 20, 10, 60, 50)), Truth((asked("a", 0, 10, 40, 50),)))
    assert score.box_iou == pytest.approx(1 / 3) and not score.as_asked and not score.missed


def test_missed_object_counts_as_nothing_in_its_place_and_not_at_all_in_its_traits():
    truth = Truth((asked("a", 10, 10, 40, 40, ("mask",), colour="red"), asked("b", 60, 60, 90, 90)))
    (first, second), extra = score_picture(blocks(("b", 60, 60, 90, 90)), truth)
    assert first.missed and not first.merged and first.box_iou == first.mask_iou == 0
    assert first.kind_right is None and first.colour_right is None and not first.as_asked
    assert not second.missed and extra == 0


def test_object_of_the_right_kind_far_away_is_missed_and_one_too_many():
    (score,), extra = score_picture(blocks(("a", 70, 70, 95, 95)), Truth((asked("a", 5, 5, 30, 30),)))
    assert score.missed and extra == 1


def test_two_objects_in_one_are_merged():
    truth = Truth((asked("a", 10, 10, 45, 60), asked("b", 50, 10, 85, 60)))
    scores, extra = score_picture(blocks(("a", 10, 10, 85, 60)), truth)
    assert [score.missed for score in scores] == [False, True]
    assert [score.merged for score in scores] == [False, True] and extra == 0


def test_wrong_kind_in_the_right_place_is_found_and_wrong():
    (score,), extra = score_picture(blocks(("b", 10, 10, 40, 40)), Truth((asked("a", 10, 10, 40, 40),)))
    assert not score.missed and score.kind_right is False and score.seen_as == "b" and extra == 0
    assert not score.as_asked


def test_names_decide_between_places_that_agree_alike():
    truth = Truth((asked("a", 20, 20, 60, 60), asked("b", 22, 20, 62, 60)))
    seen = blocks(("b", 20, 20, 60, 60), ("a", 22, 20, 62, 60))
    assert match(seen, truth).pairs == (1, 0)


def test_matching_does_not_depend_on_any_order():
    wanted = [asked("a", 5, 5, 40, 40), asked("b", 30, 30, 70, 70), asked("a", 60, 60, 95, 95)]
    drawn = [("a", 8, 5, 40, 44), ("b", 33, 28, 70, 70), ("a", 60, 64, 95, 99)]
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        seen = blocks(*(drawn[k] for k in order))
        assert [order[j] for j in match(seen, Truth(tuple(wanted))).pairs] == [0, 1, 2]


@pytest.mark.parametrize(("point", "inside"), [((0.2, 0.2), True), ((0.45, 0.2), False)])
def test_point_lies_on_the_object_or_not(point, inside):
    wanted = asked("a", 10, 10, 50, 50, ("point",), point=point)
    (score,), _ = score_picture(blocks(("a", 10, 10, 60, 50), ("b", 40, 10, 60, 50)), Truth((wanted,)))
    assert score.point_inside is inside and score.box_iou is None
    if not inside:  # what is in front of the point stands for the object then, or its box does
        assert score.as_asked is False


def test_share_of_a_stroke_inside():
    stroke = np.stack([np.linspace(0.105, 0.495, 40), np.full(40, 0.3)], 1)
    wanted = asked("a", 10, 10, 50, 50, ("scribble",), scribble=stroke)
    (score,), _ = score_picture(blocks(("a", 10, 10, 40, 50)), Truth((wanted,)))
    assert score.stroke_inside == pytest.approx(0.75) and score.as_asked


def test_without_places_names_are_paired():
    truth = Truth((TrueInstance("a"), TrueInstance("a"), TrueInstance("b")))
    scores, extra = score_picture(blocks(("a", 0, 0, 30, 30), ("c", 50, 50, 90, 90)), truth)
    assert [score.missed for score in scores] == [False, True, True] and extra == 1
    assert [score.as_asked for score in scores] == [True, False, False]


def test_mask_iou_is_coco_s():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.random((2, 13, 17)) < rng.random((2, 1, 1))
        encoded = [coco.encode(np.asfortranarray(m, np.uint8)) for m in (a, b)]
        assert mask_iou(a, b) == pytest.approx(coco.iou(encoded[:1], encoded[1:], [0])[0, 0])


def test_masks_of_another_resolution_are_compared_at_the_truths():
    seen = blocks(("a", 25, 25, 75, 75))
    large = np.zeros((200, 200), bool)
    large[50:150, 50:150] = True
    wanted = TrueInstance("a", told=("mask",), box=np.array([0.25, 0.25, 0.75, 0.75]), visible=large)
    assert score_picture(seen, Truth((wanted,)))[0][0].mask_iou == 1


def perfect(samples):
    metrics = InstanceMetrics()
    for sample in samples:
        scene = sample.to_scene(("box", "point", "scribble", "mask"))
        metrics.update(seen_of(sample), truth_of_sample(sample, scene, everything=True))
    return metrics


def test_composites_seen_perfectly_have_full_marks(samples):
    scores = perfect(samples).compute()
    for name, score in scores.items():
        assert score.value == pytest.approx(0 if name in ("missed", "merged", "extra") else 1), name
    assert set(scores) == {
        *("as_asked", "box_iou", "box_success", "mask_iou", "point_inside", "stroke_inside"),
        *("kind", "colour", "facing", "missed", "merged", "extra"),
    }


def test_breakdowns_hold_every_instance_once(samples):
    metrics = perfect(samples)
    total = sum(len(sample.instances) for sample in samples)
    for classes in metrics.breakdown().values():
        assert sum(scores["missed"].count for scores in classes.values()) == total
    by_count = metrics.breakdown()["instances"]
    assert by_count["2"]["missed"].count == 2 * sum(len(sample.instances) == 2 for sample in samples)
    assert list(by_count) == ["1", "2", "3"]


def test_scores_of_fewer_objects_are_the_share_that_is_left(samples):
    metrics, left = InstanceMetrics(), 0
    for sample in samples:
        metrics.update(seen_of(sample, lambda item: item.z_order == 0), truth_of_sample(sample, sample.to_scene()))
        left += 1
    total = sum(len(sample.instances) for sample in samples)
    scores = metrics.compute()
    assert scores["missed"].value >= 1 - left / total - 1e-9
    assert scores["box_iou"].value <= left / total + 0.1
    assert scores["kind"].count == total - round(scores["missed"].value * total)


def test_order_of_pictures_changes_no_value(samples):
    def values(chosen):
        metrics = InstanceMetrics()
        for sample in chosen:
            seen = seen_of(sample, lambda item: item.name != "gem")
            metrics.update(seen, truth_of_sample(sample, sample.to_scene()))
        return {name: score.value for name, score in metrics.compute().items()}

    assert values(samples) == pytest.approx(values(samples[::-1]))


def test_told_traits_are_those_of_the_caption(samples):
    for sample in samples:
        truth = truth_of_sample(sample, sample.to_scene())
        for item, wanted in zip(sample.instances, truth.instances, strict=True):
            assert wanted.colour == (item.colour if item.colour and item.colour in item.caption else None)
            assert wanted.facing == (item.facing if item.facing and item.facing in item.caption else None)
            assert wanted.hidden == pytest.approx(1 - item.visible.sum() / item.amodal.sum())
