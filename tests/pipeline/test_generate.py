"""`instancediffusion generate` on a tiny model: what it writes, what it skips, what it refuses."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from instancediffusion import InstanceDiffusionPipeline, Scene, save_scene
from instancediffusion.cli import cli
from instancediffusion.cli.generate import INSTANCE_MASKS, SCHEDULERS, names_of
from instancediffusion.cli.progress import Reporter
from instancediffusion.conditioning import INSTANCE_MASK_RULES
from instancediffusion.errors import InstanceDiffusionError
from instancediffusion.pipeline.folder import Picture, batches
from instancediffusion.pipeline.picture import png_bytes, read_notes
from instancediffusion.sampling import SCHEDULERS as KNOWN
from tests.tiny_pipeline import scene_of, tiny_pipeline

BEST = {"num_inference_steps": 2, "guidance_scale": 2.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny_pipeline(folder / "tokenizer", default_settings=BEST).save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture
def scenes(tmp_path):
    paths = []
    for name, count in (("one", 1), ("two", 2)):
        save_scene(scene_of(count), tmp_path / f"{name}.json")
        paths.append(str(tmp_path / f"{name}.json"))
    return paths


def generate(*arguments):
    return CliRunner().invoke(cli, ["generate", *map(str, arguments)])


def manifest(out):
    return json.loads((out / "manifest.json").read_text())["items"]


def stamps(out):
    return {path.name: path.stat().st_mtime_ns for path in out.glob("*.png")}


def test_pictures_overlays_and_manifest(model, scenes, tmp_path):
    out = tmp_path / "out"
    result = generate(*scenes, "-o", out, "--model", model, "--num-images", 2, "--seed", 5)
    assert result.exit_code == 0, result.output
    names = {f"{scene}_{seed}.png" for scene in ("one", "two") for seed in (5, 6)}
    assert {path.name for path in out.iterdir()} == names | {"one_overlay.png", "two_overlay.png", "manifest.json"}
    assert {Path(line).name for line in result.stdout.splitlines()} == names | {"one_overlay.png", "two_overlay.png"}
    assert result.stderr == ""
    record = manifest(out)["two_6"]["record"]
    assert Scene.from_dict(record["scene"]) == scene_of(2)
    assert record["seed"] == 6
    assert record["settings"]["num_inference_steps"] == 2
    assert record["settings"]["guidance_scale"] == 2.0
    assert len(record["model"]["weights"]) == 64
    assert {"instancediffusion", "python", "torch", "diffusers"} <= record["versions"].keys()
    assert record["batch"]["seconds"]["total"] > 0
    # A picture tells by itself how it was made, and can be made again from what it tells.
    notes = read_notes(out / "two_6.png")
    pipe = InstanceDiffusionPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    again = pipe(Scene.from_dict(notes["scene"]), seed=notes["seed"], **notes["settings"]).images[0]
    with Image.open(out / "two_6.png") as kept:
        assert np.abs(np.asarray(kept).astype(int) - np.asarray(again)).max() <= 1


def test_what_is_there_is_not_made_again(model, scenes, tmp_path):
    out = tmp_path / "out"
    assert generate(scenes[0], "-o", out, "--model", model).exit_code == 0
    before = stamps(out)
    result = generate(*scenes, "-o", out, "--model", model, "--seed", 0, "--seed", 7)
    assert result.exit_code == 0, result.output
    assert "1 of 4 pictures are there already" in result.stdout
    after = stamps(out)
    assert before.items() <= after.items()
    assert {"one_7.png", "two_0.png", "two_7.png"} <= after.keys()
    # A picture that was damaged is made again; one that is whole is not.
    (out / "one_7.png").write_bytes(b"")
    assert generate(*scenes, "-o", out, "--model", model, "--seed", 0, "--seed", 7).exit_code == 0
    last = stamps(out)
    assert {name for name in last if last[name] != after[name]} == {"one_7.png"}


def test_nothing_is_overwritten_in_silence(model, scenes, tmp_path):
    out = tmp_path / "out"
    assert generate(scenes[0], "-o", out, "--model", model).exit_code == 0
    before = stamps(out)
    result = generate(scenes[0], "-o", out, "--model", model, "--steps", 3)
    assert result.exit_code == 1
    assert "made with other settings" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert stamps(out) == before
    # How many rows fit into memory is no setting of the picture.
    assert generate(scenes[0], "-o", out, "--model", model, "--max-batch-rows", 2).exit_code == 0
    assert stamps(out) == before
    assert generate(scenes[0], "-o", out, "--model", model, "--steps", 3, "--overwrite").exit_code == 0
    assert stamps(out)["one_0.png"] != before["one_0.png"]
    assert manifest(out)["one_0"]["record"]["settings"]["num_inference_steps"] == 3


@pytest.mark.slow
def test_a_killed_run_leaves_whole_files_and_is_resumed(model, scenes, tmp_path):
    out = tmp_path / "out"
    arguments = ["generate", *scenes, "-o", str(out), "--model", str(model), "--num-images", "4", "--batch-size", "1"]
    command = [sys.executable, "-m", "instancediffusion", *arguments, "--steps", "8"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    guard = threading.Timer(300, process.kill)
    guard.start()
    for line in process.stdout:
        if line.strip().endswith("one_0.png"):
            process.kill()
            break
    process.communicate()
    guard.cancel()
    assert process.returncode != 0
    before = stamps(out)
    assert "two_3.png" not in before
    for path in out.glob("*.png"):
        with Image.open(path) as image:
            image.load()
    result = CliRunner().invoke(cli, [*arguments, "--steps", "8"])
    assert result.exit_code == 0, result.output
    finished = stamps(out)
    assert before.items() <= finished.items()
    assert len([name for name in finished if not name.endswith("overlay.png")]) == 8


def test_every_scene_is_checked_before_a_model_is_looked_for(scenes, tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text('{"version": 1, "prompt": "", "width": 3, "height": 64, "instances": []}')
    result = generate(scenes[0], bad, "-o", tmp_path / "out", "--model", "/no/such/model")
    assert result.exit_code == 2
    assert "no/such/model" not in result.stderr
    assert all(line.startswith("error: ") and "bad.json: $." in line for line in result.stderr.splitlines())
    assert len(result.stderr.splitlines()) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--model", "/no/such/model"], 1, "there is no folder '/no/such/model'"),
        (["--steps", "0"], 2, "--steps"),
        (["--scheduler", "ddimm"], 2, "ddimm"),
        (["--seed", "1", "--seed", "2", "--num-images", "3"], 2, "seed"),
        (["--refiner-strength", "0.5"], 2, "--refiner"),
        (["--device", "nonsense"], 2, "device: 'nonsense' cannot be used here"),
        (["--height", "37"], 2, "height: 37 is not a multiple of 4"),
    ],
)
def test_errors_are_one_line_with_an_exit_code(model, scenes, tmp_path, arguments, code, message):
    chosen = [] if "--model" in arguments else ["--model", model]
    result = generate(scenes[0], "-o", tmp_path / "out", *chosen, *arguments)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_scene_files_with_the_same_name(tmp_path):
    paths = [tmp_path / folder / "scene.json" for folder in ("a", "b")] + [tmp_path / "a" / "other.json"]
    assert names_of(paths) == ["a_scene", "b_scene", "other"]
    twins = [tmp_path / "x" / "a" / "s.json", tmp_path / "y" / "a" / "s.json"]
    assert names_of(twins) == ["a_s", "a_s-2"]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_batches_hold_every_picture_once(size):
    missing = {"a": [0, 1, 2], "b": [0, 1, 2], "c": [1], "d": [1], "e": [0, 1, 2]}
    pictures = [Picture(name, scene_of(1), seed) for name, seeds in missing.items() for seed in seeds]
    seen = []
    for scenes, seeds, order in batches(pictures, size):
        assert len(scenes) * len(seeds) == len(order) <= size
        assert [p.seed for p in order] == seeds * len(scenes)
        seen += [p.key for p in order]
    assert sorted(seen) == sorted(p.key for p in pictures)


def test_notes_of_a_picture(tmp_path):
    image = Image.new("RGB", (8, 8))
    notes = {"scene": {"prompt": "ein Bär \u2603", "big": "x" * 2_000_000}, "seed": 3}
    (tmp_path / "a.png").write_bytes(png_bytes(image, notes))
    assert read_notes(tmp_path / "a.png") == notes
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(InstanceDiffusionError, match=r"b\.png"):
        read_notes(tmp_path / "b.png")


def test_the_command_knows_every_name():
    """They are written out there, so that its help needs no torch."""
    assert tuple(KNOWN) == SCHEDULERS
    assert INSTANCE_MASK_RULES == INSTANCE_MASKS


def test_bars_are_for_terminals_only(pipe, monkeypatch, capsys):
    for watched in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda watched=watched: watched, raising=False)
        reporter = Reporter(quiet=False)
        with reporter.progress(pipe, 2):
            for k in range(2):
                pipe(scene_of(1), seed=k, **BEST)
                reporter.made(Path(f"{k}.png"))
        pipe.set_progress_bar_config(disable=True)
        told = capsys.readouterr()
        assert told.out.split() == ["0.png", "1.png"]
        assert ("2/2" in told.err) == watched
        assert ("row" in told.err) == watched
    quiet = Reporter(quiet=True)
    quiet.made(Path("a.png"))
    assert capsys.readouterr().out == ""
