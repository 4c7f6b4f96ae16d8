"""Plans into run directories: as `generate` writes them, stopped within a step, bounded in time."""

import json
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from instancediffusion import Box, Instance, Scene
from instancediffusion.errors import PicturesError, SettingsError
from instancediffusion.scene import scene_text
from instancediffusion.scene.notes import read_notes
from instancediffusion.studio import Engine, Limits, RunStore, Studio
from instancediffusion.studio.bounds import RefusedError
from instancediffusion.studio.engine import CancelledError
from instancediffusion.studio.jobs import Job
from instancediffusion.studio.page_requests import plan_of
from tests.tiny_pipeline import scene_of, tiny_pipeline

BEST = {"num_inference_steps": 4, "guidance_scale": 2.0, "scheduler": "ddim"}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return tiny_pipeline(tmp_path_factory.mktemp("tokenizer"), default_settings=BEST)


@pytest.fixture
def engine_of(pipeline, tmp_path):
    def make(**bounds):
        limits = Limits(**bounds)
        return Engine(pipeline, {"weights": "w" * 64, "dtype": "float32"}, "tiny", limits, RunStore(tmp_path))

    return make


def job_for(engine, options=None, count=2):
    return Job("id", "session", plan_of(scene_of(count), options, engine.defaults, engine.limits))


def test_pictures_are_those_of_the_pipeline_and_carry_their_scene(engine_of, pipeline):
    engine = engine_of()
    job = job_for(engine, {"seed": 5, "pictures": 2})
    engine.work(job)
    folder = engine.store.path(job.run)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["kind"] == "generate"
    assert set(manifest["items"]) == {"request", "scene_overlay", "scene_5", "scene_6"}
    record = manifest["items"]["scene_6"]["record"]
    assert {"scene", "seed", "settings", "model", "size", "batch", "versions", "device", "asked_for"} <= record.keys()
    notes = read_notes(folder / "scene_6.png")
    assert Scene.from_dict(notes["scene"]) == scene_of(2)
    expected = pipeline(scene_of(2), seed=6).images[0]
    with Image.open(folder / "scene_6.png") as kept:
        assert np.abs(np.asarray(kept).astype(int) - np.asarray(expected)).max() <= 1
    assert engine.store.file(job.run, "scene.json")


def test_the_manifest_is_that_of_generate(engine_of, pipeline, tmp_path):
    from click.testing import CliRunner

    from instancediffusion import save_scene
    from instancediffusion.cli import cli

    pipeline.save_pretrained(tmp_path / "model")
    save_scene(scene_of(2), tmp_path / "scene.json")
    arguments = [
        "generate",
        tmp_path / "scene.json",
        "-o",
        tmp_path / "out",
        "--seed",
        3,
        "--model",
        tmp_path / "model",
    ]
    assert CliRunner().invoke(cli, list(map(str, arguments))).exit_code == 0
    theirs = json.loads((tmp_path / "out" / "manifest.json").read_text())["items"]["scene_3"]
    engine = engine_of()
    engine.model["weights"] = theirs["record"]["model"]["weights"]
    job = job_for(engine, {"seed": 3})
    engine.work(job)
    mine = engine.store._items(job.run)["scene_3"]
    assert mine.fingerprint == theirs["fingerprint"]
    assert mine.record["settings"] == theirs["record"]["settings"]


def test_progress_only_grows_and_previews_come(engine_of):
    engine = engine_of()
    job = job_for(engine, {"settings": {"num_inference_steps": 8}, "pictures": 2})
    seen, tell = [], job.tell

    def noting(**progress):
        tell(**progress)
        seen.append((job.progress["share"], job.progress["step"]) if "share" in job.progress else (0, 0))

    job.tell = noting
    engine.work(job)
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert [step for _, step in seen][:9] == list(range(9))
    assert job.preview_count == 8
    assert len(job.previews) == 2
    assert all(png.startswith(b"\x89PNG") for png in job.previews)
    assert engine.seconds(100) > 0


def test_a_job_stops_within_one_step_and_leaves_no_empty_folder(engine_of):
    engine = engine_of()
    job = job_for(engine, {"settings": {"num_inference_steps": 50}})
    steps, tell = [], job.tell

    def noting(**progress):
        tell(**progress)
        steps.append(progress.get("step", 0))
        if progress.get("step") == 3:
            job.stop.set()
            engine.interrupt(job)

    job.tell = noting
    with pytest.raises(CancelledError):
        engine.work(job)
    assert max(steps) <= 4
    assert engine.store.ids() == []
    assert job.run is None


def test_what_was_finished_before_a_stop_stays(engine_of):
    engine = engine_of()
    job = job_for(engine, {"grid": {"x": {"setting": "guidance_scale", "values": [1, 2, 3]}}})
    tell = job.tell

    def noting(**progress):
        tell(**progress)
        if progress.get("pictures_done") == 2:
            job.stop.set()

    job.tell = noting
    with pytest.raises(CancelledError):
        engine.work(job)
    (summary,) = engine.store.listing(5)
    assert len(summary["pictures"]) == 2


def test_time_is_bounded(engine_of):
    engine = engine_of(run_seconds=0.05)
    start = time.monotonic()
    with pytest.raises(RefusedError, match="minutes"):
        engine.work(job_for(engine, {"settings": {"num_inference_steps": 200}}))
    assert time.monotonic() - start < 20
    assert engine.store.ids() == []


def test_a_picture_that_overflows_leaves_the_others(engine_of, pipeline, monkeypatch):
    """As float16 does on some seed."""
    import instancediffusion.pipeline.run as run

    def noise(generators, shape):
        drawn = start_noise(generators, shape)
        drawn[1] = torch.nan
        return drawn

    start_noise = run.start_noise
    monkeypatch.setattr(run, "start_noise", noise)
    engine = engine_of()
    job = job_for(engine, {"seed": 5, "pictures": 3})
    with pytest.raises(PicturesError, match=r"^scene_6: .*float32"):
        engine.work(job)
    (summary,) = engine.store.listing(5)
    assert len(summary["pictures"]) == 2


def test_a_grid_is_one_run_with_a_place_for_each_picture(engine_of):
    engine = engine_of()
    grid = {"x": {"setting": "guidance_scale", "values": [1, 3]}, "y": {"setting": "z_order"}}
    job = job_for(engine, {"grid": grid, "seed": 1}, count=4)
    engine.work(job)
    details = engine.store.details(job.run)
    assert {tuple(picture["cell"]) for picture in details["pictures"]} == {(0, 0), (1, 0), (0, 1), (1, 1)}
    assert details["grid"]["x"]["values"] == [1, 3]
    orders = {tuple(i.get("z_order") for i in scene["instances"]) for scene in details["scenes"].values()}
    assert orders == {(None, None, 1, 0), (None, None, -1, 0)}


def test_pictures_too_large_are_refused_before_the_queue(engine_of):
    engine = engine_of(picture_pixels=64 * 64)
    engine.picture_size(job_for(engine).request)
    with pytest.raises(RefusedError, match="128 x 128"):
        engine.picture_size(job_for(engine, {"settings": {"height": 128, "width": 128}}).request)


def test_a_studio_as_a_whole(engine_of):
    from instancediffusion.scene import scene_text

    studio = Studio(engine_of())
    session, text = "s" * 20, scene_text(scene_of(2))
    try:
        job = studio.submit(text, {"seed": 4}, session)["job"]
        done = threading.Event()
        for _ in range(2000):
            if studio.job(job)["state"] == "done":
                done.set()
                break
            time.sleep(0.005)
        assert done.is_set()
        run = studio.job(job)["result"]
        assert studio.results()[0]["id"] == run
        assert studio.result(run)["pictures"][0]["url"] == f"/studio/runs/{run}/scene_4.png"
        assert studio.jobs(session) == []
        checked = studio.check(text, {})
        assert checked["ok"]
        assert checked["rows"] == 4 * 2 + 1 * 2 * 2  # one of the four steps runs both instances alone
        assert checked["seconds"] > 0
    finally:
        studio.close()


def test_a_picture_made_here_is_changed(engine_of):
    studio = Studio(engine_of())
    try:
        scene = scene_of(2)
        made = finished(studio, studio.submit(json.dumps(scene.to_dict()), {"seed": 3}, "s" * 20))
        picture = studio.result(made)["pictures"][0]
        edit = {"run": made, "file": picture["file"], "redraw": [0]}
        changed = finished(studio, studio.submit(json.dumps(scene.to_dict()), {"edit": edit, "seed": 4}, "s" * 20))
        after = studio.result(changed)["pictures"][0]
        before, now = (
            np.asarray(Image.open(studio.store.file(run, one["file"])))
            for run, one in ((made, picture), (changed, after))
        )
        assert (before[32:] == now[32:]).all()
        assert (before[:, 32:] == now[:, 32:]).all()
        assert (before[:32, :32] != now[:32, :32]).any()
        for wrong, says in (
            ({**edit, "redraw": [2]}, "edit: redraw is a list of instances"),
            ({**edit, "file": "../x.png"}, "file: "),
            ({**edit, "run": "x"}, "run: "),
            ({"path": "/"}, "edit: write"),
        ):
            with pytest.raises((SettingsError, RefusedError), match=says):
                studio.submit(json.dumps(scene.to_dict()), {"edit": wrong}, "s" * 20)
    finally:
        studio.close()


def finished(studio, job):
    """The result of a job, once it is there."""
    for _ in range(600):
        shown = studio.job(job["job"])
        if shown["state"] in ("done", "failed"):
            break
        time.sleep(0.1)
    assert shown["state"] == "done", shown
    return shown["result"]


def test_captions_like_nothing_the_model_draws_are_told_where_they_stand(tmp_path, monkeypatch):
    known = ("a dog", "a red cat", "a green tree", "a ball")
    pipeline = tiny_pipeline(tmp_path / "tokens", familiar={"captions": known, "likeness": 0.9999})
    studio = Studio(Engine(pipeline, {}, "tiny", Limits(min_side_px=16), RunStore(tmp_path / "runs")))
    read = []
    strangers = type(pipeline.familiar).strangers
    monkeypatch.setattr(
        type(pipeline.familiar), "strangers", lambda self, asked, *a: read.extend(asked) or strangers(self, asked, *a)
    )
    place = Box(0.0, 0.0, 0.5, 0.5)
    captions = ("a dog", "zxqv blorf", "a ball", "zxqv blorf")
    scene = scene_text(Scene("things", tuple(Instance(caption, box=place) for caption in captions), 64, 64))
    try:
        for _ in range(2):
            problems = studio.check(scene)["problems"]
            assert [(p["path"], p["severity"], p["instance"]) for p in problems] == [
                ("$.instances[1].caption", "warning", 1),
                ("$.instances[3].caption", "warning", 3),
            ]
            assert all("what is nearest is 'a " in problem["message"] for problem in problems)
        assert sorted(read) == ["a ball", "a dog", "zxqv blorf"]
    finally:
        studio.close()
