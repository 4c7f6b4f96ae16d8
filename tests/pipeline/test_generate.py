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
from instancediffusion.cli.progress import Reporter
from instancediffusion.errors import InstanceDiffusionError, ModelError
from instancediffusion.pipeline.picture_folder import Picture, batches
from instancediffusion.runs import DATABASE, MANIFEST
from instancediffusion.scene.inputs import Reading, read_inputs
from instancediffusion.scene.notes import png_bytes, read_notes
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
    assert {path.name for path in out.iterdir()} == names | {"one_overlay.png", "two_overlay.png", MANIFEST, DATABASE}
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
    assert "add --overwrite" in result.stderr
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


BAD = '{"version": 1, "prompt": "", "width": 3, "height": 64, "instances": []}'


def test_nothing_is_written_before_the_model_is_open(scenes, tmp_path):
    result = generate(scenes[0], "-o", tmp_path / "out", "--model", "/no/such/model")
    assert result.exit_code == 1 and "no/such/model" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_scene_that_cannot_be_used_leaves_the_others(model, scenes, tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text(BAD)
    result = generate(scenes[0], bad, scenes[1], tmp_path / "none.json", "-o", tmp_path / "out", "--model", model)
    assert result.exit_code == 2
    assert {path.name for path in (tmp_path / "out").glob("*_0.png")} == {"one_0.png", "two_0.png"}
    lines = result.stderr.splitlines()
    assert len(lines) == 3 and all(line.startswith("error: ") for line in lines)
    assert sum("bad.json: $." in line for line in lines) == 2 and "none.json: $: no such file" in lines[-1]
    alone = generate(bad, "-o", tmp_path / "alone", "--model", "/no/such/model")
    assert alone.exit_code == 2 and "no/such/model" not in alone.stderr
    assert not (tmp_path / "alone").exists()


def test_a_picture_that_fails_leaves_its_batch(model, scenes, tmp_path, monkeypatch):
    """A float16 model that overflowed on one seed once took the three pictures made with it."""
    call = InstanceDiffusionPipeline.__call__

    def overflowing(self, given, *, seed, **options):
        if 2 in seed:
            raise ModelError("the picture is not finite; use float32")
        return call(self, given, seed=seed, **options)

    monkeypatch.setattr(InstanceDiffusionPipeline, "__call__", overflowing)
    arguments = (*scenes, "-o", tmp_path / "out", "--model", model, "--num-images", 4)
    for state in ("made", "there"):  # the second time only the failed ones are tried again
        result = generate(*arguments, "--json")
        assert result.exit_code == 1
        assert result.stderr == "error: one, seed 2: the picture is not finite; use float32 (and 1 more)\n"
        listed = json.loads(result.stdout)
        states = {(item["scene"], item["seed"]): item["state"] for item in listed}
        expected = {(name, seed): "failed" if seed == 2 else state for name in ("one", "two") for seed in range(4)}
        assert states == expected
        assert all(Path(item["path"]).exists() == (item["state"] != "failed") for item in listed)
    monkeypatch.undo()
    assert generate(*arguments).exit_code == 0
    assert len(list((tmp_path / "out").glob("*_?.png"))) == 8


def test_pictures_of_a_version_that_knew_fewer_settings_are_not_made_again(model, scenes, tmp_path):
    out = tmp_path / "out"
    assert generate(scenes[0], "-o", out, "--model", model).exit_code == 0
    (out / DATABASE).unlink()
    old = json.loads((out / MANIFEST).read_text())
    item = old["items"]["one_0"]
    item["fingerprint"] = "of the fewer settings"
    del item["record"]["settings"]["order_guidance_scale"]
    (out / MANIFEST).write_text(json.dumps(old))
    before = stamps(out)
    again = generate(scenes[0], "-o", out, "--model", model)
    assert again.exit_code == 0 and "1 of 1 pictures are there" in again.stdout and stamps(out) == before
    assert generate(scenes[0], "-o", out, "--model", model, "--order-guidance-scale", 1).exit_code == 1
    assert generate(scenes[0], "-o", out, "--model", model, "--steps", 1).exit_code == 1
    assert stamps(out) == before


def test_pictures_that_are_in_the_way_leave_the_others(model, scenes, tmp_path):
    out = tmp_path / "out"
    assert generate(scenes[0], "-o", out, "--model", model).exit_code == 0
    (out / "two_1.png").write_bytes(b"mine")
    result = generate(*scenes, "-o", out, "--model", model, "--num-images", 2, "--json")
    assert result.exit_code == 1 and "two_1.png is there already, made by no run" in result.stderr
    states = {Path(item["path"]).stem: item["state"] for item in json.loads(result.stdout)}
    assert states == {"one_0": "there", "one_1": "made", "two_0": "made", "two_1": "taken"}
    assert (out / "two_1.png").read_bytes() == b"mine"


def test_a_picture_is_made_again_with_its_own_seed_and_settings(model, scenes, tmp_path):
    seed = 2**64 - 1
    first = generate(scenes[1], "-o", tmp_path / "a", "--model", model, "--seed", seed, "--steps", 3)
    assert first.exit_code == 0, first.output
    picture = tmp_path / "a" / f"two_{seed}.png"
    assert read_notes(picture)["seed"] == manifest(tmp_path / "a")[f"two_{seed}"]["record"]["seed"] == seed
    again = generate(picture, "-o", tmp_path / "b", "--model", model)
    assert (again.exit_code, again.stderr) == (0, "")
    assert (tmp_path / "b" / picture.name).read_bytes() == picture.read_bytes()
    other = generate(picture, "-o", tmp_path / "half", "--model", model, "--dtype", "bfloat16")
    assert other.exit_code == 0 and "was made with other dtype" in other.stderr
    # A folder of pictures, each with what it was made with; what is typed wins.
    assert generate(scenes[0], "-o", tmp_path / "a", "--model", model, "--num-images", 2).exit_code == 0
    assert generate(tmp_path / "a", "-o", tmp_path / "c", "--model", model).exit_code == 0
    for path in (tmp_path / "a").glob("*_[0-9]*.png"):
        assert (tmp_path / "c" / path.name).read_bytes() == path.read_bytes()
    assert generate(picture, "-o", tmp_path / "d", "--model", model, "--seed", 1, "--steps", 2).exit_code == 0
    assert manifest(tmp_path / "d")["two_1"]["record"]["settings"]["num_inference_steps"] == 2


def test_prompts_files_folders_and_standard_input(model, scenes, tmp_path):
    data = {
        "images": [{"id": n, "file_name": f"{part}\\1.jpg", "width": 64, "height": 64} for n, part in enumerate("xy")],
        "annotations": [{"id": n, "image_id": n, "category_id": "7", "bbox": [1, 1, 30, 40]} for n in (0, 1)],
        "categories": [{"id": 7, "name": "dog"}],
    }
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "coco.json").write_text(json.dumps(data))
    (folder / "notes.txt").write_text("to do")
    (folder / "package.json").write_text('{"name": "x", "scripts": {}}')
    Image.new("RGB", (8, 8)).save(folder / "photo.png")
    out = tmp_path / "out"
    text = Path(scenes[1]).read_bytes()
    command = ["generate", "A red dog, of sorts!", str(folder), scenes[0], scenes[0], "-", "-o", str(out)]
    result = CliRunner().invoke(cli, [*command, "--model", str(model), "--height", "64", "--width", "64"], input=text)
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.glob("*_0.png")} == {
        "a_red_dog_of_sorts_0.png", "x_1_0.png", "y_1_0.png", "one_0.png", "stdin_0.png",
    }  # fmt: skip
    (folder / "cut.json").write_text('{"version": 1, "prom')
    again = generate(folder, "-o", out, "--model", model, "--height", 64, "--width", 64)
    assert (
        again.exit_code == 2 and "cut.json: $: is not JSON" in again.stderr and "2 pictures are there" in again.stdout
    )
    record = manifest(out)["a_red_dog_of_sorts_0"]["record"]
    assert record["scene"]["prompt"] == "A red dog, of sorts!" and record["scene"]["instances"] == []


def test_one_picture_to_a_file_or_to_standard_output(model, scenes, tmp_path):
    made = generate(scenes[0], "-o", "-", "--model", model)
    assert made.exit_code == 0, made.stderr
    assert made.stdout_bytes.startswith(b"\x89PNG")
    (tmp_path / "a.png").write_bytes(b"mine")
    refused = generate(scenes[0], "-o", tmp_path / "a.png", "--model", model)
    assert refused.exit_code == 2 and "--overwrite" in refused.stderr
    assert (tmp_path / "a.png").read_bytes() == b"mine"
    assert generate(scenes[0], "-o", tmp_path / "a.png", "--model", model, "--overwrite").exit_code == 0
    assert (tmp_path / "a.png").read_bytes() == made.stdout_bytes
    assert {path.name for path in tmp_path.iterdir()} == {"one.json", "two.json", "a.png"}
    assert generate(*scenes, "-o", "-", "--model", model).exit_code == 2
    taken = generate(scenes[0], "-o", scenes[1], "--model", model)
    assert taken.exit_code == 2 and "two.json is a file" in taken.stderr


def test_a_name_that_the_terminal_cannot_show_does_not_end_the_work(model, scenes, tmp_path):
    scene = tmp_path / "熊猫 🐼.json"
    scene.write_bytes(Path(scenes[0]).read_bytes())
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "instancediffusion", "generate", str(scene), "-o", str(tmp_path / "out"),
               "--model", str(model)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "熊猫 🐼_0.png").is_file()
    assert b"\\u718a" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--model", "/no/such/model"], 1, "'/no/such/model'"),
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


def test_scene_files_with_the_same_name(scenes, tmp_path):
    paths = []
    for folder in ("x/a", "y/a", "b"):
        (tmp_path / folder).mkdir(parents=True)
        paths.append(tmp_path / folder / "s.json")
        paths[-1].write_bytes(Path(scenes[0]).read_bytes())
    found = read_inputs([str(path) for path in [*paths, paths[0], scenes[0]]], Reading(), (64, 64)).found
    assert [item.name for item in found] == ["a_s", "a_s-2", "b_s", "one"]


@pytest.mark.parametrize(
    ("text", "prompt"),
    [("a dog", True), ("dog", True), ("a dog/cat", True), ("dog.json", False), ("x/dog", False), ("a dog.PNG", False)],
)
def test_what_is_no_file_is_a_prompt_unless_it_looks_like_one(text, prompt):
    inputs = read_inputs([text], Reading(), (64, 64))
    assert [item.scene.prompt for item in inputs.found] == ([text] if prompt else [])
    assert bool(inputs.problems) != prompt


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


def test_a_picture_is_edited_with_its_own_seed_and_settings(model, scenes, tmp_path):
    first, second = scenes
    generate(second, "-o", tmp_path / "out", "--model", model, "--seed", 5, "--steps", 3, "--layers")
    made = tmp_path / "out" / "two_5.png"
    assert sorted(path.name for path in (tmp_path / "out" / "two_5_layers").iterdir())[-1] == "composite.png"
    assert (tmp_path / "out" / "two_5.ora").is_file()
    result = generate(first, "--edit", made, "-o", tmp_path / "edited", "--model", model)
    assert result.exit_code == 0, result.output
    record = manifest(tmp_path / "edited")["one_5"]["record"]
    assert record["settings"]["num_inference_steps"] == 3
    assert record["model"]["edit"]["file"] == "two_5.png"
    same = generate(second, "--edit", made, "-o", tmp_path / "same", "--model", model)
    assert same.exit_code == 1
    assert "it is that of the picture" in same.output
    assert generate(second, "--edit", made, "--redraw", 1, "-o", tmp_path / "anew", "--model", model).exit_code == 0
    assert "two_6" in manifest(tmp_path / "anew")
    picture = [first, "--image", made, "--strength", 0.5, "-o", tmp_path / "over", "--model", model]
    assert generate(*picture).exit_code == 0
    assert generate(*picture).exit_code == 0  # there already
    assert generate(*picture[:3], "--lora", "none.safetensors", *picture[5:]).exit_code == 1


def test_what_was_edited_is_edited_again(model, scenes, tmp_path):
    """`generate` of an edited PNG once drew its scene from scratch, without a word."""
    first, second = scenes
    made, short = tmp_path / "out" / "two_5.png", ["--model", model]
    generate(second, "-o", tmp_path / "out", *short, "--seed", 5, "--steps", 3, "--layers")
    generate(first, "--edit", made, "-o", tmp_path / "edited", *short)
    generate(second, "--edit", made, "--redraw", 1, "-o", tmp_path / "anew", *short)
    for picture in (made, tmp_path / "edited" / "one_5.png", tmp_path / "anew" / "two_6.png"):
        result = generate(picture, "-o", tmp_path / "again", *short)
        assert result.exit_code == 0, result.output
        assert "warning" not in result.stderr
        assert (tmp_path / "again" / picture.name).read_bytes() == picture.read_bytes()
    # Both in one command: of one scene and one name, and made in two ways.
    both = generate(made, tmp_path / "anew" / "two_6.png", "-o", tmp_path / "both", *short)
    assert both.exit_code == 0, both.output
    drawn = {path.read_bytes() for path in (tmp_path / "both").glob("*_[56].png")}
    assert drawn == {made.read_bytes(), (tmp_path / "anew" / "two_6.png").read_bytes()}
    layered = generate(tmp_path / "edited" / "one_5.png", "--layers", "-o", tmp_path / "no", *short)
    assert layered.exit_code != 0
    assert "layers: " in layered.output and "was made by --edit" in layered.output
    assert not (tmp_path / "no").exists()

    elsewhere = tmp_path / "deep" / "elsewhere"
    elsewhere.mkdir(parents=True)
    (elsewhere / "one_5.png").write_bytes((tmp_path / "edited" / "one_5.png").read_bytes())
    lost = generate(elsewhere / "one_5.png", "-o", tmp_path / "lost", *short)
    assert lost.exit_code == 0
    assert "is an edit of two_5.png, which is not in its folder" in lost.stderr
    generate(first, "--image", tmp_path / "again" / "two_5.png", "-o", tmp_path / "over", *short)
    told = generate(tmp_path / "over" / "one_0.png", "-o", tmp_path / "plain", *short).stderr
    assert "was made with image, not given now: the picture will be another" in told


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--control", "{}"], "control: 1 pictures for 0 ControlNets"),
        (["--mask", "{}"], "mask: there is no picture; add --image"),
        (["--redraw", 1], "redraw: there is no picture; add --edit"),
        (["--edit", "{}", "--layers"], "layers: it does not go with --edit"),
        (["--lora", "{}"], "only .safetensors files are read"),
        (["--textual-inversion", "none.bin"], "there is no such file or folder"),
    ],
)
def test_additions_that_cannot_be_used_are_named(model, scenes, tmp_path, arguments, says):
    picture = tmp_path / "picture.png"
    Image.new("RGB", (64, 64)).save(picture)
    given = [str(a).format(picture) for a in arguments]
    result = generate(scenes[0], *given, "-o", tmp_path / "out", "--model", model)
    assert result.exit_code != 0
    assert says in result.output
    assert not (tmp_path / "out").exists()
