"""One object, one box: what is asked for, how far pictures differ, and the two commands with a real (tiny) model."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tests.conftest import ROOT
from tests.evaluation.conftest import small_world
from tests.tiny_pipeline import tiny_pipeline

from instancediffusion.cli.study import study
from instancediffusion.errors import SettingsError
from instancediffusion.projects.emoji_judge import Judge, JudgeConfig
from instancediffusion.projects.emoji_judge.judge_task import with_words
from instancediffusion.projects.emoji_judge.network import JudgeNetwork
from instancediffusion.projects.emoji_world.catalogue import FIRST_CORE, KINDS
from instancediffusion.projects.overlap_study import object_runs
from instancediffusion.projects.overlap_study.single_objects import (
    caption_requests,
    mean_distance,
    read_captions,
    seed_requests,
)

CAPTIONS = [("a wobbly circle", "disc"), ("somebody's lost jewel", "gem")]


@pytest.fixture(scope="module")
def world():
    return small_world(64)


def test_captions_are_drawn_alone_where_their_box_is(world):
    for (caption, name), request in zip(CAPTIONS, caption_requests(world, CAPTIONS), strict=True):
        (instance,), (wanted,) = request.scene.instances, request.truth.instances
        assert instance.caption == request.scene.prompt == request.truth.name == caption and wanted.name == name
        x0, y0, x1, y1 = (round(v * 64) for v in instance.box.xyxy)
        assert np.allclose(wanted.box, instance.box.xyxy)
        ground = np.asarray(request.truth.composite, float)
        outside = np.ones((64, 64), bool)
        outside[max(y0 - 1, 0) : y1 + 1, max(x0 - 1, 0) : x1 + 1] = False
        colour = {"disc": (230, 40, 30), "gem": (250, 220, 60)}[name]
        near = np.abs(ground - colour).sum(-1) < 40
        assert near.sum() > 0.3 * (x1 - x0) * (y1 - y0) and not (near & outside).any()


def test_requests_are_the_same_every_time_and_seeds_differ_in_noise_alone(world):
    first, second = (list(seed_requests(world, 2, 3)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert [request.scene for request in one] == [request.scene for request in other]
        assert len({request.seed for request in one}) == 3
        assert len({request.scene.to_dict()["prompt"] for request in one}) == 1
        assert all(request.scene == one[0].scene for request in one)
    assert not np.array_equal(first[0][0].truth.composite, first[0][1].truth.composite)


def test_distance_is_that_of_pairs_within_the_box():
    black, white = np.zeros((20, 20, 3), np.uint8), np.full((20, 20, 3), 255, np.uint8)
    whole = np.array([0.0, 0.0, 1.0, 1.0])
    assert mean_distance([black, white], whole) == pytest.approx(1)
    assert mean_distance([black, black, white], whole) == pytest.approx(2 / 3)
    left = black.copy()
    left[:, :10] = 255
    assert mean_distance([black, left], np.array([0.5, 0.0, 1.0, 1.0])) == pytest.approx(0)
    assert mean_distance([black, Image.fromarray(left).resize((40, 40))], np.array([0.0, 0.0, 0.4, 1.0])) > 0.99
    with pytest.raises(SettingsError, match="two"):
        mean_distance([black], whole)


def test_captions_of_the_repository_are_in_words_of_their_own():
    found = read_captions(ROOT / "benchmarks" / "everyday_captions.json")
    assert len(found) == 100 == len({caption for caption, _ in found})
    names = {kind.name for kind in KINDS if kind.name in FIRST_CORE}
    assert {name for _, name in found} <= names and len({name for _, name in found}) > 90


@pytest.mark.parametrize("text", ["{}", "[]", '[{"caption": "a cat"}]', "nothing"])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "captions.json").write_text(text)
    with pytest.raises(SettingsError, match=r"captions\.json"):
        read_captions(tmp_path / "captions.json")


def test_an_unknown_class_is_named(world):
    with pytest.raises(SettingsError, match="'unicorn'"):
        list(caption_requests(world, [("a unicorn", "unicorn")]))


def test_both_commands_draw_score_and_go_on(tmp_path, world, monkeypatch):
    tiny_pipeline(tmp_path / "tokenizer").save_pretrained(tmp_path / "model")
    config = JudgeConfig(
        side_px=32, widths=(8, 8, 8, 8), depths=(0, 0, 0, 0), hidden=8, crop_px=16, crop_widths=(8, 8, 8)
    )
    Judge(JudgeNetwork(with_words(config, world))).save(tmp_path / "judge")
    monkeypatch.setattr(object_runs, "object_world", lambda: world)
    (tmp_path / "captions.json").write_text(json.dumps([{"caption": c, "class": k} for c, k in CAPTIONS]))
    told = ["captions", str(tmp_path / "captions.json"), "--judge", str(tmp_path / "judge"), "-o", str(tmp_path / "c")]
    for _ in range(2):
        result = CliRunner().invoke(study, [*told, "--model", str(tmp_path / "model"), "--quiet"])
        assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (tmp_path / "c" / "captions.jsonl").read_text().splitlines()]
    assert [line["caption"] for line in lines] == [caption for caption, _ in CAPTIONS]
    report = json.loads((tmp_path / "c" / "report.json").read_text())
    assert report["facts"]["right_class_of_all"] == np.mean([line["right"] for line in lines])
    assert report["groups"][0]["composites"]["pictures"] == report["groups"][0]["others"]["pictures"] == 2
    told = ["seeds", "--model", str(tmp_path / "model"), "-o", str(tmp_path / "s"), "--objects", "2", "--seeds", "3"]
    result = CliRunner().invoke(study, told)
    assert result.exit_code == 0, result.output
    values = json.loads((tmp_path / "s" / "seeds.json").read_text())
    assert len(values["captions"]) == 2 and all(row["model"] > 0 for row in values["captions"])
    assert values["ratio"] == pytest.approx(np.mean([row["model"] / row["world"] for row in values["captions"]]))
    assert "mean ratio" in result.output
