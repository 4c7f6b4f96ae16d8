"""Pictures made on a cluster: each there once, those of one process, also when a machine is lost in the middle."""

import sys
import threading
import time
from functools import partial

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from instancediffusion.cli import cli
from instancediffusion.cli.progress import Countdown
from instancediffusion.datasets import open_dataset
from instancediffusion.errors import ModelError, SettingsError
from instancediffusion.evaluation.gallery import Gallery
from instancediffusion.pipeline import GenerationSettings
from instancediffusion.pipeline.opening import open_quietly
from instancediffusion.projects.emoji_judge import Judge, JudgeConfig
from instancediffusion.projects.emoji_judge.evaluation_run import EvaluationRun
from instancediffusion.projects.emoji_judge.judge_task import with_words
from instancediffusion.projects.emoji_judge.network import JudgeNetwork
from instancediffusion.ray_pool import RayOptions, ray_map
from instancediffusion.runs import RunDirectory
from instancediffusion.scene import save_scene
from tests.annotation.constructed import save
from tests.annotation.tiny_models import blip, depth_anything, grounding_dino, sam2
from tests.evaluation.conftest import small_world
from tests.tiny_pipeline import scene_of, tiny_pipeline

QUICK = ["--guidance-scale", 1, "--mis-fraction", 0, "--device", "cpu"]


def run(*args):
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def test_without_ray_and_without_its_engine_one_line_says_what_to_do(monkeypatch, tmp_path):
    done = run("generate", "a cat", "-o", tmp_path, "--address", "auto")
    assert done.exit_code == 2 and "address: it goes with --engine ray" in done.stderr
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match=r"instancediffusion\[ray\]"):
        list(ray_map(int, abs, [1], RayOptions()))
    assert list(ray_map(int, abs, [], RayOptions())) == []


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline(folder / "tokenizer_of").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def cluster():
    """A head that only schedules, and two machines of one core each."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.workers = [made.add_node(num_cpus=1) for _ in range(2)]
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()


def pictures(folder):
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.glob("scene*_[0-9]*.png"))}


def same(first, second):
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_a_machine_lost_in_the_middle_loses_and_doubles_no_picture(model, cluster, tmp_path):
    for count in (1, 2, 3):
        save_scene(scene_of(count), tmp_path / f"scene{count}.json")
    scenes = [tmp_path / f"scene{count}.json" for count in (1, 2, 3)]
    common = [*scenes, "--model", model, "--num-images", 4, "--steps", 12, "--batch-size", 1, *QUICK]
    assert run("generate", *common, "-o", tmp_path / "one").exit_code == 0

    import ray

    there_when_killed, done = [], threading.Event()

    def kill():
        while not done.is_set() and len(pictures(tmp_path / "many")) < 2:
            time.sleep(0.05)
        there_when_killed.append(len(pictures(tmp_path / "many")))
        # The machine that this process itself joined is left alone: Ray, which joins any one with this address, would
        # take the whole process along, and it did so in one run of three.
        mine = ray.get_runtime_context().get_node_id()
        lost = next(node for node in cluster.workers if node.node_id != mine)
        cluster.workers.remove(lost)
        cluster.remove_node(lost, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    made = run("generate", *common, "-o", tmp_path / "many", "--engine", "ray", "--address", cluster.address)
    done.set()
    killer.join()
    assert made.exit_code == 0, made.output
    assert 2 <= there_when_killed[0] < 12
    assert same(pictures(tmp_path / "one"), pictures(tmp_path / "many"))
    told = [line for line in made.stdout.splitlines() if line.endswith(".png") and "overlay" not in line]
    assert len(told) == len(set(told)) == 12
    items = RunDirectory(tmp_path / "many", "generate").items()
    assert sum("seed" in item.record for item in items.values()) == 12

    # All is there: no cluster is asked for anything.
    again = run("generate", *common, "-o", tmp_path / "many", "--engine", "ray", "--address", "127.0.0.1:1")
    assert again.exit_code == 0 and "12 of 12 pictures are there already" in again.stdout
    # Gone on with: what is missing is made by whoever comes.
    gone = tmp_path / "many" / "scene2_3.png"
    gone.unlink()
    assert run("generate", *common, "-o", tmp_path / "many").exit_code == 0
    assert same(pictures(tmp_path / "one"), pictures(tmp_path / "many"))


@pytest.mark.slow
def test_data_sets_and_evaluations_of_a_cluster_are_those_of_one_process(model, cluster, tmp_path):
    (tmp_path / "spec.toml").write_text(
        "pictures = 6\nsize = [64, 64]\ninstances = [1, 2]\n[[classes]]\nname = 'cat'\n[[classes]]\nname = 'dog'\n"
        "[settings]\nnum_inference_steps = 2\nguidance_scale = 1.0\nmis_fraction = 0.0\n"
    )
    common = [tmp_path / "spec.toml", "--model", model, "--device", "cpu", "--batch-size", 2]
    there = ["--engine", "ray", "--address", cluster.address, "--actors", 1]
    for name, more in (("one", []), ("many", there)):
        done = run("dataset", "make", *common, "-o", tmp_path / name, *more)
        assert done.exit_code == 0 and "6 of 6 pictures" in done.stdout, done.output
    first, second = (open_dataset(tmp_path / name) for name in ("one", "many"))
    for index in range(6):
        assert first[index] == second[index] and np.array_equal(first[index].pixels(), second[index].pixels())

    torch.manual_seed(0)
    config = JudgeConfig(side_px=64, widths=(8, 8, 8, 8), depths=(0, 0, 0, 0), hidden=8)
    judge = Judge(JudgeNetwork(with_words(config, small_world())))
    settings = GenerationSettings(num_inference_steps=2, mis_fraction=0.0, guidance_scale=1.0)
    made = []
    for name, engine in (("local", None), ("spread", RayOptions(cluster.address, actors=1))):
        gallery = Gallery(tmp_path / name, {"settings": settings.to_dict()})
        evaluation = EvaluationRun(
            gallery, small_world(), judge, settings, 3, True, {}, partial(open_quietly, model, device="cpu"), 2,
            lambda what, total: Countdown(what, total, quiet=True), engine,
        )  # fmt: skip
        list(evaluation.go(("box", "prompt")))
        lines = (tmp_path / name / "box_scores.jsonl").read_text()
        made.append((lines, [np.asarray(gallery.picture(g, n)) for g in ("box", "prompt") for n in range(3)]))
    assert made[0][0] == made[1][0] and np.array_equal(made[0][1], made[1][1])
    with pytest.raises(ModelError, match="gone"):
        list(
            ray_map(
                partial(open_quietly, tmp_path / "gone", device="cpu"), abs, [1], RayOptions(cluster.address, actors=1)
            )
        )


@pytest.mark.slow
def test_annotations_of_a_cluster_are_those_of_one_process(cluster, tmp_path):
    names = {"detector": grounding_dino, "segmenter": sam2, "captioner": blip, "depth": depth_anything}
    models = [part for stage, make in names.items() for part in (f"--{stage}", make(tmp_path / stage))]
    (tmp_path / "recipe.toml").write_text("score = 0.0\nmask_agreement = 0.0\ncaption_side = 4\nbatch_size = 2\n")
    rng = np.random.default_rng(0)
    for number in range(5):
        pixels = rng.integers(0, 256, (32 + number, 48, 3)).astype(np.uint8)
        save(tmp_path / "in" / f"{number}.png", pixels)
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no picture")
    common = ["data", "annotate", tmp_path / "in", *models, "--device", "cpu", "--tags", "cat,dog"]
    common += ["--recipe", tmp_path / "recipe.toml"]
    there = ["--engine", "ray", "--address", cluster.address]
    for name, more in (("one", []), ("many", there)):
        done = run(*common, "-o", tmp_path / name, *more)
        assert done.exit_code == 1 and "5 pictures" in done.stdout and "6 new" in done.stdout, done.output
        assert "broken.jpg" in done.stderr
    first, second = (open_dataset(tmp_path / name) for name in ("one", "many"))
    assert sum(len(first[index].scene.instances) for index in range(5)) > 0
    for index in range(5):
        assert first[index] == second[index] and np.array_equal(first[index].pixels(), second[index].pixels())
    # All is there, the picture that failed too: no cluster is asked for anything.
    again = run(*common, "-o", tmp_path / "many", "--engine", "ray", "--address", "127.0.0.1:1")
    assert "is up to date" in again.stdout and "0 new" in again.stdout, again.output


@pytest.mark.slow
def test_a_study_of_a_cluster_is_that_of_one_process(model, cluster, tmp_path):
    from instancediffusion.pipeline.opening import open_quietly
    from instancediffusion.projects.overlap_study.compared import chosen
    from instancediffusion.projects.overlap_study.flip_and_grid import flip_cells
    from instancediffusion.projects.overlap_study.meters import NoMeter
    from instancediffusion.projects.overlap_study.study_run import StudyRun

    cells = list(flip_cells(small_world(), 1, ("box",)))
    compared = chosen(("order", "plain"), GenerationSettings(num_inference_steps=2, guidance_scale=1.0))
    here, there = (StudyRun(tmp_path / name, cells, compared, NoMeter()) for name in ("here", "there"))
    here.make(open_quietly(model, device="cpu"), here.missing(), lambda _: None)
    asked = there.missing()
    there.make(open_quietly(model, device="cpu"), asked[:1], lambda _: None)  # gone on with, on a cluster
    counted = []
    there.spread(
        partial(open_quietly, model, device="cpu"), there.missing(), RayOptions(cluster.address), counted.append
    )
    assert sum(counted) == len(asked) - 1 and there.missing() == []
    made = [{p.name: np.asarray(Image.open(p)) for p in run.path.rglob("*.png")} for run in (here, there)]
    assert len(made[0]) == len(asked) and same(*made)
