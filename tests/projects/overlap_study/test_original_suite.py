"""The original scenes, and the command on a model of another world than ours (a tiny one of random weights)."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.projects.overlap_study.tiny_judges import tiny_owl, tiny_sam
from tests.tiny_pipeline import tiny_pipeline

from instancediffusion.cli import cli
from instancediffusion.cli import study as study_command
from instancediffusion.projects.overlap_study.original_suite import ORIGINALS, original_cells
from instancediffusion.projects.overlap_study.photographs import DETECTOR, SEGMENTER
from instancediffusion.scene import load_scene, without_order
from instancediffusion.scene.files import examples_folder

# The tiny model reads 24 letters of a caption.
pytestmark = pytest.mark.filterwarnings("ignore::instancediffusion.errors.SceneWarning")


@pytest.fixture(scope="module")
def cells():
    return list(original_cells(2))


def test_the_command_names_the_judge_that_is_taken():
    assert (study_command.DETECTOR, study_command.SEGMENTER) == (DETECTOR, SEGMENTER)


def test_every_original_scene_is_asked_for_as_it_is(cells):
    files = {path.stem for path in Path("examples").glob("test*.json")}
    assert {original.name for original in ORIGINALS} == files
    assert examples_folder() == Path("examples").resolve()
    for original in ORIGINALS:
        scene = load_scene(f"examples/{original.name}.json")
        assert [cell.seed for cell in cells if cell.scene == scene] == [0, 1]
    assert len({cell.key for cell in cells}) == len(cells)


def test_layers_come_in_both_orders_and_change_nothing_else(cells):
    twins = {}
    for cell in cells:
        if cell.factors.get("order") == "layers":
            twins.setdefault(cell.twins, []).append(cell)
    assert len(twins) == 2 * sum(original.pair is not None for original in ORIGINALS)
    for one, other in twins.values():
        assert without_order(one.scene) == without_order(other.scene)
        assert (one.front, other.front) == (0, 1)
        for cell in (one, other):
            layers = [cell.scene.instances[index].z_order for index in cell.pair]
            assert layers[cell.front] > layers[1 - cell.front]
            assert cell.asked(order=False) == load_scene(f"examples/{cell.truth.name}.json")


def test_a_file_asks_for_an_order_only_where_it_says_so(cells):
    asked = {cell.truth.name: cell.pair and cell.front for cell in cells if cell.factors.get("order") != "layers"}
    for name, front in asked.items():
        scene = load_scene(f"examples/{name}.json")
        if "covering" in scene.prompt:
            assert front == 0
    assert asked["test2_bbox_apple_pear1"] is None
    assert asked["test4_scribble_polar_bear_iceberg_igloo2"] == 1


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline(folder / "words").save_pretrained(folder / "tiny")
    return folder / "tiny"


def run(model, output, *options):
    fixed = ["study", "overlap", "--model", str(model), "-o", str(output), "--seeds", "1", "--steps", "1", "--quiet"]
    return CliRunner().invoke(cli, [*fixed, "--compare", "plain", "--compare", "order", *options])


@pytest.fixture(scope="module")
def study(model, tmp_path_factory):
    output = tmp_path_factory.mktemp("study") / "original"
    result = run(model, output)
    assert result.exit_code == 0, result.output
    return output


def report_of(study):
    report = json.loads((study / "report.json").read_text())
    return report["facts"], {(e["section"], e["settings"], e["group"]): e for e in report["entries"]}


def test_without_a_judge_there_are_pictures_and_times(study):
    facts, entries = report_of(study)
    assert (facts["scenes"], facts["suites"], facts["judge"], facts["missing"]) == ("original", ["seed"], None, 0)
    assert {section for section, _, _ in entries} == {f"original{n}" for n in range(6)}
    assert all(entry["measures"] == {} and entry["seconds"] > 0 for entry in entries.values())
    assert "Test 4, the original scenes" in (study / "report.html").read_text()


def test_a_judge_measures_the_same_pictures(study, model, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in study.rglob("*.png")}
    detector, segmenter = str(tiny_owl(tmp_path)), str(tiny_sam(tmp_path))
    result = run(model, study, "--detector", detector, "--segmenter", segmenter)
    assert result.exit_code == 0, result.output
    assert {path: path.stat().st_mtime_ns for path in study.rglob("*.png")} == before
    facts, entries = report_of(study)
    assert facts["judge"] == {"detector": detector, "segmenter": segmenter, "threshold": 0.2}
    fruit = entries["original2", "order", ""]["measures"]
    assert {"right", "first_front", "missed", "merged", "doubled", "pair_right", "flipped", "prior"} <= set(fruit)
    assert "visible_iou" in entries["original0", "plain", "told mask"]["measures"]


def test_what_does_not_go_together_is_refused(model, tmp_path):
    result = run(model, tmp_path / "a", "--suite", "flip")
    assert result.exit_code != 0
    assert "--scenes world" in result.output
    (tmp_path / "judge").mkdir()
    result = run(model, tmp_path / "b", "--judge", str(tmp_path / "judge"))
    assert result.exit_code != 0
    assert "give a --detector" in result.output
    result = run(model, tmp_path / "c", "--judge", str(tmp_path / "judge"), "--detector", "./absent")
    assert result.exit_code != 0
    assert "use one" in result.output
    result = run(model, tmp_path / "d", "--detector", "./absent")
    assert result.exit_code != 0
    assert "detector: there is no folder './absent'" in result.output
    assert not list(tmp_path.rglob("*.png"))
