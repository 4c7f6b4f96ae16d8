"""Layouts, truths and reports."""

import json

import numpy as np
import pytest

from instancediffusion import Box, Instance, Mask, Point, Scene, Scribble
from instancediffusion.errors import SettingsError
from instancediffusion.evaluation import (
    EvaluationReport,
    Evaluator,
    FeatureStatistics,
    ReportError,
    evaluate,
    to_markdown,
    truth_of_scene,
)
from instancediffusion.evaluation.sheets import Showcase, fault_text, judged_sheet
from instancediffusion.evaluation.truth import named_kind
from instancediffusion.projects.emoji_judge.layouts import (
    CHECK_SEED,
    FIRST_SEED,
    GROUPS,
    JUDGE_SEED,
    REFERENCE_SEED,
    layouts,
)
from instancediffusion.projects.emoji_world import KINDS as CATALOGUE
from instancediffusion.projects.emoji_world import ObjectKind
from instancediffusion.scene import KINDS

from .conftest import Oracle


def test_layouts_are_the_same_every_time_and_in_any_part(world):
    whole = list(layouts(world, "mixed", 6))
    part = list(layouts(world, "mixed", 2, first=3))
    for a, b in zip(whole[3:5], part, strict=True):
        assert a.scene == b.scene and a.seed == b.seed and a.number == b.number
        assert np.array_equal(a.sample.image, b.sample.image)


def test_all_groups_are_of_the_same_pictures(world):
    images = {group: [layout.sample.image for layout in layouts(world, group, 3)] for group in GROUPS}
    for group in GROUPS:
        assert all(np.array_equal(a, b) for a, b in zip(images[group], images["box"], strict=True))


def test_seeds_do_not_meet():
    starts = sorted([0, FIRST_SEED, REFERENCE_SEED, CHECK_SEED, JUDGE_SEED])
    assert min(np.diff(starts)) >= 10_000_000


@pytest.mark.parametrize("group", KINDS)
def test_one_kind_is_told(world, group):
    for layout in layouts(world, group, 5):
        assert all(instance.kinds == (group,) for instance in layout.scene.instances)
        assert all(wanted.told == (group,) for wanted in layout.truth.instances)
        assert all(instance.z_order is not None for instance in layout.scene.instances)


def test_mixed_scenes_tell_each_instance_one_way_and_all_ways_occur(world):
    kinds = [instance.kinds for layout in layouts(world, "mixed", 30) for instance in layout.scene.instances]
    assert {len(k) for k in kinds} == {1} and {k[0] for k in kinds} == set(KINDS)


def test_prompts_ask_for_what_they_name(world):
    for layout in layouts(world, "prompt", 20):
        assert layout.scene.instances == () and layout.scene.prompt == layout.sample.prompt
        names = {item.name for item in layout.sample.instances}
        assert {wanted.name for wanted in layout.truth.instances} <= names
        assert all(not wanted.told for wanted in layout.truth.instances)


def test_order_can_be_left_untold_and_groups_are_checked(world):
    (layout,) = layouts(world, "box", 1, order=False)
    assert all(instance.z_order is None for instance in layout.scene.instances)
    with pytest.raises(SettingsError, match="boxes"):
        next(layouts(world, "boxes", 1))


def test_names_are_read_from_captions():
    kinds = (ObjectKind("tree", "t"), ObjectKind("palm tree", "p", ("palm",)), ObjectKind("cat", "c"))
    assert named_kind("a tall palm tree", kinds).name == "palm tree"
    assert named_kind("a leafy Tree", kinds).name == "tree"
    assert named_kind("a cat in a tree", kinds) is None
    assert named_kind("a category", kinds) is None


def test_truth_of_any_scene():
    mask = np.zeros((64, 64), bool)
    mask[16:48, 8:40] = True
    scene = Scene(
        "things",
        (
            Instance("a red car", box=Box(0, 0, 0.5, 0.5)),
            Instance("a cat facing left", mask=Mask.from_array(mask)),
            Instance("a spoon", point=Point(0.25, 0.75)),
            Instance("a rose", scribble=Scribble(((0.1, 0.2), (0.5, 0.4)))),
        ),
        64,
        64,
    )
    car, cat, spoon, rose = truth_of_scene(scene, CATALOGUE).instances
    assert (car.name, car.colour, car.facing) == ("car", "red", None)
    assert (cat.name, cat.facing) == ("cat", "left") and cat.box == pytest.approx([0.125, 0.25, 0.625, 0.75])
    assert (spoon.name, spoon.box, spoon.point) == (None, None, (0.25, 0.75))
    assert rose.box == pytest.approx([0.1, 0.2, 0.5, 0.4])


def report_of(world, count=6):
    chosen = {group: list(layouts(world, group, count)) for group in ("box", "prompt")}
    oracle = Oracle([layout.sample for layout in chosen["box"]])
    reference = FeatureStatistics(3)
    reference.update(np.eye(3))
    evaluator, showcase = Evaluator(oracle, reference), Showcase(4)
    groups = []
    for name, group in chosen.items():
        # The last picture is empty; the others are the composites.
        pictures = [
            (x.sample.image if x.number < count - 1 else np.zeros((64, 64, 3), np.uint8), x.truth) for x in group
        ]
        groups.append(evaluator.group(name, pictures, showcase.add))
    return (
        EvaluationReport(tuple(groups), {"model": "oracle", "settings": {"steps": 3}}, oracle.describe()),
        showcase,
        oracle,
    )


def test_composites_are_the_upper_bound(world):
    report, _, oracle = report_of(world)
    box = report.group("box")
    assert box.composites.scores["as_asked"].value == 1 and box.generated.scores["as_asked"].value < 1
    assert box.generated.pictures == box.composites.pictures == 6
    assert box.generated.distance > 0 and box.composites.distance > 0
    # Pictures of other layouts say what is right by chance.
    assert box.others.pictures == 6 and box.others.scores["as_asked"].value < 0.3 < box.others.scores["missed"].value
    assert oracle.looked_at == 6 + 6 + 6  # a composite that two groups share is judged once


def test_reports_survive_a_file(world, tmp_path):
    report, _, _ = report_of(world)
    report.save(tmp_path / "report.json")
    assert EvaluationReport.load(tmp_path / "report.json") == report
    json.loads((tmp_path / "report.json").read_text())
    (tmp_path / "other.json").write_text("[]")
    (tmp_path / "broken.json").write_text("{")
    for name in ("other", "broken"):
        with pytest.raises(ReportError):
            EvaluationReport.load(tmp_path / f"{name}.json")
    with pytest.raises(ReportError, match="format 99"):
        EvaluationReport.from_dict({**report.to_dict(), "version": 99})


def test_tables_show_every_group_and_score(world):
    report, _, _ = report_of(world)
    text = to_markdown(report)
    assert "| box | 6 |" in text and "| prompt | 6 |" in text and "## Told: box" in text
    assert "(1.000)" in text and "objects in the picture" in text
    widths = [line.count("|") for line in text.splitlines() if line.startswith("| box |")]
    assert len(widths) == 1 and widths[0] == next(
        line.count("|") for line in text.splitlines() if line.startswith("| told")
    )


def test_worst_pictures_come_first_and_say_why(world):
    _, showcase, _ = report_of(world)
    assert showcase.worst[0].faults == len(showcase.worst[0].scores) > 0
    assert "missed" in fault_text(showcase.worst[0])
    assert judged_sheet(showcase.worst).width > 3 * 192


def test_any_pairs_can_be_evaluated(samples):
    report = evaluate([(sample.image, sample) for sample in samples[:5]], Oracle(samples[:5]), name="mine")
    assert report.group("mine").generated.scores["mask_iou"].value == 1
    scene = samples[0].to_scene(("box",))
    report = evaluate([(samples[0].image, scene)], Oracle(samples[:1]))
    assert report.group("all").composites is None and report.group("all").generated.scores["box_iou"].value > 0.99
