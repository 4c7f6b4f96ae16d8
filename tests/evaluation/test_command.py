"""The whole course: pictures of a random pipeline, scored and reported, in a folder that can be gone on with."""

import json

import pytest
import torch
from click.testing import CliRunner

from instancediffusion.cli import cli
from instancediffusion.cli import evaluate as command
from instancediffusion.cli.evaluate import GROUPS, _ratio, base_settings
from instancediffusion.cli.progress import Countdown
from instancediffusion.cli.settings_options import settings_of
from instancediffusion.errors import SettingsError
from instancediffusion.evaluation import EvaluationReport
from instancediffusion.evaluation.gallery import Gallery
from instancediffusion.pipeline import GenerationSettings
from instancediffusion.projects.emoji_judge import Judge, JudgeConfig
from instancediffusion.projects.emoji_judge.evaluation_run import EvaluationRun, check_words
from instancediffusion.projects.emoji_judge.judge_task import with_words
from instancediffusion.projects.emoji_judge.layouts import GROUPS as KNOWN
from instancediffusion.projects.emoji_judge.network import JudgeNetwork
from instancediffusion.projects.overlap_study.compared import chosen
from instancediffusion.runs import RunConflictError
from tests.tiny_pipeline import tiny_pipeline

from .conftest import small_world

SETTINGS = GenerationSettings(num_inference_steps=2, mis_fraction=0.0, guidance_scale=1.0)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return tiny_pipeline(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def judge():
    torch.manual_seed(0)
    config = JudgeConfig(side_px=64, widths=(8, 8, 8, 8), depths=(0, 0, 0, 0), hidden=8)
    return Judge(JudgeNetwork(with_words(config, small_world())))


def run_in(folder, judge, pipeline, *, count=3, settings=SETTINGS, opened=None, replace=False):
    def open_pipeline():
        if opened is not None:
            opened.append(1)
        return pipeline

    decisive = {"weights": "w", "settings": settings.to_dict()}
    return EvaluationRun(
        gallery=Gallery(folder, decisive, replace=replace),
        world=small_world(),
        judge=judge,
        settings=settings,
        count=count,
        order=True,
        facts={"model": "tiny"},
        open_pipeline=open_pipeline,
        batch_size=2,
        progress=lambda what, total: Countdown(what, total, quiet=True),
    )


def test_evaluation_is_made_gone_on_with_and_protected(judge, pipeline, tmp_path):
    opened = []
    written = list(run_in(tmp_path, judge, pipeline, opened=opened).go(("box", "prompt")))
    assert opened == [1] and all(path.is_file() for path in written)
    first = (tmp_path / "box" / "00001.png").read_bytes()
    report = EvaluationReport.load(tmp_path / "report.json")
    assert [group.name for group in report.groups] == ["box", "prompt"]
    assert report.group("box").generated.pictures == 3 == report.group("box").composites.pictures
    assert report.group("box").generated.distance is not None
    assert report.facts["model"] == "tiny" and report.facts["layouts"]["first_seed"] == 10_000_000
    assert "# Evaluation" in (tmp_path / "report.md").read_text()
    lines = [json.loads(line) for line in (tmp_path / "box_scores.jsonl").read_text().splitlines()]
    assert len(lines) == report.group("box").generated.scores["missed"].count

    # All is there: the model is not even loaded, and the report comes out the same.
    list(run_in(tmp_path, judge, pipeline, opened=opened).go(("box", "prompt")))
    assert opened == [1] and EvaluationReport.load(tmp_path / "report.json") == report

    # More layouts: the pictures that were there come out the same.
    list(run_in(tmp_path, judge, pipeline, count=5, opened=opened).go(("box",)))
    assert opened == [1, 1] and (tmp_path / "box" / "00001.png").read_bytes() == first

    other = SETTINGS.replace(num_inference_steps=3)
    with pytest.raises(RunConflictError, match="--overwrite"):
        run_in(tmp_path, judge, pipeline, settings=other)
    list(run_in(tmp_path, judge, pipeline, settings=other, replace=True).go(("box",)))
    assert (tmp_path / "box" / "00001.png").read_bytes() != first


def test_without_a_judge_nothing_is_made_and_the_way_to_train_one_is_told(tmp_path):
    for arguments in (["evaluate"], ["study", "overlap", "--scenes", "world"]):
        result = CliRunner().invoke(cli, [*arguments, "-o", str(tmp_path / "out")])
        assert result.exit_code != 0
        assert "instancediffusion judge train recipes/judge.toml" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("said", "aspect"), [("3:2", 1.5), ("1.5", 1.5), ("1:1", 1.0), ("9:16", 0.5625)])
def test_the_shape_of_the_layouts_can_be_said(said, aspect):
    assert _ratio(None, None, said) == pytest.approx(aspect)


@pytest.mark.parametrize("said", ["5:1", "0:1", "3:0", "wide", "", "3:2:1", "nan"])
def test_what_is_no_shape_of_a_canvas_is_refused(said, tmp_path):
    result = CliRunner().invoke(cli, ["evaluate", "--aspect", said, "-o", str(tmp_path / "out")])
    assert result.exit_code == 2 and "give width to height" in result.output


def test_layouts_of_another_shape_are_made_and_judged_in_it(judge, pipeline, tmp_path):
    run = run_in(tmp_path, judge, pipeline, count=2)
    run.world = small_world(aspect=2.0)
    list(run.go(("box",)))
    assert run.gallery.picture("box", 1).size == (88, 48)
    report = EvaluationReport.load(tmp_path / "report.json")
    assert report.facts["layouts"]["aspect"] == 2.0


def test_pictures_are_those_of_their_seeds(judge, pipeline, tmp_path):
    run = run_in(tmp_path, judge, pipeline, count=3)
    list(run.go(("mixed",)))
    layout = run._layout("mixed", 2)
    expected = pipeline(layout.scene, seed=layout.seed, settings=SETTINGS).images[0]
    found = run.gallery.picture("mixed", 2)
    difference = torch.tensor(list(expected.tobytes())).int() - torch.tensor(list(found.tobytes())).int()
    assert difference.abs().max() <= 1


def test_judge_must_know_the_world(judge):
    judge = Judge(JudgeNetwork(JudgeConfig(kinds=("disc", "gem"), colours=("red", "green", "blue"), side_px=64)))
    with pytest.raises(SettingsError, match="arrow"):
        check_words(judge, small_world())


def test_presets():
    own = GenerationSettings(num_inference_steps=25, guidance_scale=3.0, mis_fraction=0.0, instance_mask="visibility")
    assert settings_of(base_settings(own, "default"), {"num_inference_steps": None}) == own
    published = settings_of(base_settings(own, "published"), {"mis_fraction": 0.2})
    assert (published.scheduler, published.num_inference_steps) == ("plms", 50)
    assert (published.grounding_fraction, published.mis_fraction, published.mis_merge) == (0.8, 0.2, "mean")
    assert published.instance_mask == "none"  # a mask of the model's own would not be the published attention
    assert published.guidance_scale == 3.0
    (mean,) = chosen(("mean",), own).values()
    assert mean[1] == base_settings(own, "published")


def test_command_knows_every_group():
    assert command.GROUPS == GROUPS == KNOWN


def test_countdown_says_how_long_it_will_take(capsys):
    counter = Countdown("pictures", 3, every=0)
    counter.add(2)
    counter.add(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("pictures 2/3") and "left" in lines[0] and "left" not in lines[1]
