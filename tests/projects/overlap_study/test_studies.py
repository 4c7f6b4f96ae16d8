"""The overlap study on pictures whose answer is known, and its course with a real (tiny) model."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from tests.evaluation.conftest import Oracle, seen_of, small_world
from tests.tiny_pipeline import tiny_pipeline

from instancediffusion.errors import SettingsError
from instancediffusion.evaluation import Seen
from instancediffusion.evaluation.estimates import Estimate
from instancediffusion.evaluation.orders import Overlap, owned_overlap
from instancediffusion.pipeline import GenerationSettings
from instancediffusion.projects.overlap_study.cells import Cell
from instancediffusion.projects.overlap_study.compared import COMPARED, chosen
from instancediffusion.projects.overlap_study.composites import Item, compose
from instancediffusion.projects.overlap_study.flip_and_grid import both_orders
from instancediffusion.projects.overlap_study.meters import JudgeMeter
from instancediffusion.projects.overlap_study.plots import Plot, to_svg, values_of
from instancediffusion.projects.overlap_study.seen_rows import given_boxes, measure_seen
from instancediffusion.projects.overlap_study.study_metrics import pair_summary, spread, summary
from instancediffusion.projects.overlap_study.study_report import Entry
from instancediffusion.projects.overlap_study.study_run import StudyRun
from instancediffusion.projects.overlap_study.write import write_design, write_report
from instancediffusion.runs import RunConflictError

SIDE, SEED = 128, 3
ITEMS = (Item("disc", (0.4, 0.5), 0.5, "blue"), Item("gem", (0.62, 0.5), 0.5))


@pytest.fixture(scope="module")
def world():
    return small_world(SIDE)


@pytest.fixture(scope="module")
def cells(world):
    return list(both_orders(world, ITEMS, "pair/0", "flip", SEED, {}, ("box", "point")))


@pytest.fixture(scope="module")
def samples(world):
    """Both orders of the pair, by who is in front."""
    ground = world.backgrounds[SEED % len(world.backgrounds)].name
    return {front: compose(world, ITEMS, (1 - front, front), ground, seed=SEED) for front in (0, 1)}


@pytest.fixture(scope="module")
def seen(samples):
    """What a perfect judge sees of them."""
    return {front: seen_of(sample) for front, sample in samples.items()}


@pytest.fixture(scope="module")
def shared(samples):
    """Where the two overlap."""
    return samples[0].instances[0].amodal & samples[0].instances[1].amodal


def labelled(seen, labels):
    return Seen(labels.astype(np.uint8), seen.instances)


def test_true_pictures_are_told_apart_and_clean(seen, shared):
    for front, one in seen.items():
        found = owned_overlap(one, 0, 1, shared)
        assert found.front == front
        assert found.blend < 0.02


def test_what_shows_neither_belongs_to_nobody(seen, shared):
    found = owned_overlap(labelled(seen[0], np.where(shared, 0, seen[0].labels)), 0, 1, shared)
    assert found.neither == 1 and found.blend == 1
    assert found.front is None


def test_an_overlap_that_changes_hands_flickers(seen, shared):
    halved = seen[0].labels.copy()
    halved[: SIDE // 2] = seen[1].labels[: SIDE // 2]
    found = owned_overlap(labelled(seen[0], halved), 0, 1, shared)
    assert found.flicker == pytest.approx(0.5, abs=0.1)
    assert found.blend == pytest.approx(found.flicker + found.neither)


def test_objects_that_share_nothing_have_no_order(world):
    sample = compose(world, (Item("disc", (0.2, 0.5), 0.25, "red"), Item("gem", (0.8, 0.5), 0.25)), (0, 1), "meadow")
    shared = sample.instances[0].amodal & sample.instances[1].amodal
    assert owned_overlap(seen_of(sample), 0, 1, shared) is None


@pytest.mark.parametrize("told", ["box", "point"])
def test_both_orders_come_out_right_or_turned_round(cells, seen, told):
    pair = [cell for cell in cells if cell.factors["told"] == told]
    right = pair_summary([measure_seen(cell, seen[cell.front], "x") for cell in pair])
    assert (right["pair_right"].value, right["flipped"].value, right["prior"].value) == (1, 1, 0)
    wrong = pair_summary([measure_seen(cell, seen[1 - cell.front], "x") for cell in pair])
    assert (wrong["pair_right"].value, wrong["flipped"].value, wrong["prior"].value) == (0, 1, 0)
    deaf = pair_summary([measure_seen(cell, seen[0], "x") for cell in pair])
    assert (deaf["pair_right"].value, deaf["flipped"].value, deaf["prior"].value) == (0, 0, 0.5)


def test_a_reader_of_pairs_is_believed_more_than_labels(cells, seen):
    """Whichever of the two detections comes first in the picture."""
    cell = cells[0]
    one = seen[cell.front]
    for instances, labels in (
        (one.instances, one.labels),
        (one.instances[::-1], np.where(one.labels > 0, len(one.instances) + 1 - one.labels, 0).astype(np.uint8)),
    ):
        at = [instances.index(one.instances[index]) for index in cell.pair]
        for front in (0, 1):
            lead = 0.9 if (front == 0) == (at[0] < at[1]) else -0.9
            pair = Overlap(0.5, 0.25, 40, lead)
            row = measure_seen(cell, Seen(labels, instances, overlaps={(min(at), max(at)): pair}), "x")
            assert (row["front"], row["blend"]) == (front, 0.5)
            none = measure_seen(cell, Seen(labels, instances, overlaps={(min(at), max(at)): None}), "x")
            assert none["front"] is None


def test_a_true_picture_is_whole_and_a_missed_object_is_not(cells, seen):
    cell = cells[0]
    row = measure_seen(cell, seen[cell.front], "x")
    assert (row["clean"], row["missed"], row["right"]) == (1, 0, 1)
    assert row["visible_iou"] == row["hidden_complete"] == 1
    near = cell.pair[cell.front]
    alone = Seen((seen[cell.front].labels == near + 1).astype(np.uint8), (seen[cell.front].instances[near],))
    row = measure_seen(cell, alone, "x")
    assert (row["missed"], row["right"], row["hidden_complete"]) == (0.5, 0, 0)
    assert row["visible_iou"] == pytest.approx(0.5)


def test_who_is_in_front_is_read_in_the_boxes_that_were_given(cells, seen):
    """A detector that misses the hidden object says nothing of the order: of the world's own pairs .00 were right."""
    cell = cells[0]
    truth, near = seen[cell.front], cell.pair[cell.front]
    assert given_boxes(cell).shape == (len(cell.truth.instances), 4)

    class Blind:
        def look(self, images):
            return [Seen((truth.labels == near + 1).astype(np.uint8), (truth.instances[near],)) for _ in images]

    class Reader(Blind):
        def read(self, images, boxes):
            assert np.array_equal(boxes[0], given_boxes(cell))
            return [truth for _ in images]

        def with_overlaps(self, image, seen):
            assert seen is truth  # it is not asked of what nobody reads
            return seen

    blind, read = (next(JudgeMeter(judge).rows([cell], ["picture"], "x")) for judge in (Blind(), Reader()))
    assert (blind["missed"], blind["right"]) == (0.5, 0)
    assert (read["missed"], read["right"]) == (0.5, 1)
    pointed = tuple(replace(one, told=("point",)) for one in cell.truth.instances)
    assert given_boxes(replace(cell, truth=replace(cell.truth, instances=pointed))) is None


def test_telling_no_order_changes_nothing_else(cells):
    one, other = (cell.asked(order=False) for cell in cells[:2])
    assert one == other
    assert cells[0].asked(order=True) != cells[1].asked(order=True)


def test_spread_is_that_of_the_seeds():
    rows = [{"x": 0.5 + 0.1 * k, "y": 0.5, "side": 0.3} for k in (-1, 0, 1)]
    found = spread(rows)
    assert found["place_spread"].value == pytest.approx((0.02 / 3) ** 0.5)
    assert found["size_spread"].value == pytest.approx(0, abs=1e-9)


def test_every_compared_setting_can_be_used():
    assert set(chosen((), GenerationSettings())) == {row.name for row in COMPARED}
    with pytest.raises(SettingsError, match="none of"):
        chosen(("best",), GenerationSettings())


def test_a_study_goes_on_where_it_was_and_reports(tmp_path, cells, samples):
    two: list[Cell] = cells[:2]
    compared = chosen(("order", "plain", "layered"), GenerationSettings(num_inference_steps=2, scheduler="ddim"))
    run = StudyRun(tmp_path / "study", two, compared, JudgeMeter(Oracle(samples.values())))
    run.claim({"weights": "a"})
    missing = run.missing()
    # Settings that are told no order draw both orders once.
    assert [name for name, _ in missing] == ["order", "order", "plain", "layered", "layered"]
    pipe = tiny_pipeline(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    run.make(pipe, missing[:2], lambda _: None)
    assert len(run.missing()) == 3
    before = {p: p.read_bytes() for p in (tmp_path / "study").rglob("*.png")}
    run.make(pipe, run.missing(), lambda _: None)
    assert run.missing() == []
    assert all(path.read_bytes() == data for path, data in before.items())
    write_design(run)
    list(write_report(run, {"model": "tiny"}, lambda _what, _total: lambda _done: None))
    report = json.loads((tmp_path / "study" / "report.json").read_text())
    entries = {entry["settings"]: entry for entry in report["entries"] if entry["group"] == ""}
    assert entries["composites"]["measures"]["pair_right"]["value"] == 1
    assert entries["order"]["pictures"] == entries["plain"]["pictures"] == 2
    assert entries["order"]["seconds"] > 0
    page = (tmp_path / "study" / "report.html").read_text()
    assert page.count("<figure>") == 2 * 5  # told, composite, three settings, for both orders
    assert "http" not in page.replace("http-equiv", "")
    with pytest.raises(RunConflictError, match="overwrite"):
        run.claim({"weights": "b"})
    run.claim({"weights": "b"}, replace=True)
    assert len(run.missing()) == 5


def test_rows_of_one_order_make_no_pair(cells, seen):
    rows = [measure_seen(cells[0], seen[cells[0].front], "x")]
    assert pair_summary(rows) == {}
    assert summary(rows)["right"].value == 1


def test_a_pair_that_shows_no_order_is_left_out(cells, seen):
    """Such a pair once ended the whole report."""
    rows = [measure_seen(cell, seen[cell.front], "x") for cell in cells[:2]]
    silent = [
        {key: value for key, value in row.items() if key not in ("front", "first_front", "right")} for row in rows
    ]
    assert pair_summary(silent) == {}
    assert pair_summary([*rows, *({**row, "twins": "other"} for row in silent)])["pair_right"].count == 1


def test_a_plot_shows_each_value_at_its_place():
    entries = [
        Entry("flip", f"overlap {value}", name, 4, 1.0, {"pair_right": Estimate(height, height - 0.1, height, 4)})
        for name, heights in (("a", (0.2, 0.8)), ("b", (0.6, 0.4)))
        for value, height in zip(("few", "many"), heights, strict=True)
    ]
    entries.append(Entry("flip", "told box, overlap few", "a", 2, 1.0, {"pair_right": Estimate(1.0, 1.0, 1.0, 2)}))
    plot = Plot("overlap", "pair_right")
    values, series = values_of(entries, plot)
    assert values == ["few", "many"] and [one.value for one in series["b"]] == [0.6, 0.4]
    root = ElementTree.fromstring(to_svg(entries, plot, {"a": "A & co"}))
    heights = [float(circle.get("cy")) for circle in root.findall("circle") if circle.get("r") == "3"]
    assert heights[0] - heights[1] == pytest.approx(3 * (heights[2] - heights[3]) * -1, abs=0.3)  # .6 up, .2 down
    assert "A & co" in [text.text for text in root.findall("text")]
    assert to_svg(entries[:1], plot, {}) == ""


def test_objects_drawn_apart_show_no_order(world, cells, seen):
    """Points leave open how far objects reach: where they do not meet, nobody is in front, and nothing is wrong."""
    apart = (Item("disc", (0.25, 0.5), 0.3, "blue"), Item("gem", (0.75, 0.5), 0.3))
    pointed = next(cell for cell in cells if cell.factors["told"] == "point")
    row = measure_seen(pointed, seen_of(compose(world, apart, (0, 1), "meadow")), "x")
    assert row["apart"] == 1 and "right" not in row
    met = measure_seen(pointed, seen[pointed.front], "x")
    assert met["apart"] == 0 and met["right"] == 1
