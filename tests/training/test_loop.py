"""What the loop does beside its steps: optimisers, several noises a scene, scores, curves, several processes."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from instancediffusion.errors import SettingsError
from instancediffusion.training import stages
from instancediffusion.training.checkpoint import load_checkpoint
from instancediffusion.training.config import OptimiserConfig
from instancediffusion.training.fit import fit
from instancediffusion.training.optimisers import optimiser
from instancediffusion.training.processes import prepare

from .conftest import shared


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def changed(recipe, draws=1, scorer=None, **run):
    config = replace(recipe.diffusion, noise_draws=draws, optimiser=replace(recipe.diffusion.optimiser, **run))
    return replace(recipe, diffusion=config)


def weights(run):
    return load_checkpoint(run / "diffusion" / "checkpoint.pt")["modules"]["unet"]


def lines(run, stage="diffusion"):
    return [json.loads(line) for line in (run / stage / "metrics.jsonl").read_text().splitlines()]


def assert_same(first, second):
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("settings", [{"algorithm": "muon"}, {"draws": 2, "batch_size": 4}])
def test_options_resume_to_the_same_bits(drawn, recipe, tmp_path, settings):
    recipe = changed(recipe, **settings)
    runs = []
    for name, parts in (("unbroken", [None]), ("broken", [1, 3, None])):
        (tmp_path / name).mkdir()
        runs.append(shared(drawn, tmp_path / name))
        for part in parts:
            stages.diffusion(recipe, runs[-1], stop_after=part)
    assert_same(weights(runs[0]), weights(runs[1]))
    assert [line["step"] for line in lines(runs[1])] == [2, 4, 6]


def test_muon_takes_the_linear_layers_and_adamw_the_rest(drawn, recipe):
    recipe = changed(recipe, algorithm="muon")
    task = stages.diffusion_task(recipe, drawn)
    made = optimiser(task.modules, recipe.diffusion.optimiser)
    held = [{id(p) for g in made._parts[name].param_groups for p in g["params"]} for name in ("muon", "adamw")]
    learning = {id(p): name for name, p in task.unet.named_parameters()}
    assert not held[0] & held[1] and set(learning) <= held[0] | held[1]
    assert all(p.dim() == 2 for g in made._parts["muon"].param_groups for p in g["params"])
    assert id(task.unet.conv_in.weight) in held[1] and id(task.unet.time_embedding.linear_1.weight) in held[0]
    # Steps of both are of the size of the learning rate, 1e-3; Muon aims at a fifth of it, as AdamW settles at.
    before = {name: p.detach().clone() for name, p in task.unet.named_parameters()}
    task.loss(0)[0].backward()
    made.step()
    moved = {
        id(p): float((p.detach() - before[name]).square().mean().sqrt()) for name, p in task.unet.named_parameters()
    }
    largest = [max(moved[number] for number in part & set(moved)) for part in held]
    assert 1e-4 < largest[0] < 4e-4 and 5e-4 < largest[1] < 2e-3


def test_noises_of_a_scene_share_its_text_and_its_grounding(drawn, recipe):
    task = stages.diffusion_task(changed(recipe, draws=2, batch_size=4), drawn)
    seen = []

    def watch(_, args, kwargs):
        seen.append((*args, kwargs["encoder_hidden_states"], kwargs["cross_attention_kwargs"]["grounding"]))

    handle = task.unet.register_forward_pre_hook(watch, with_kwargs=True)
    task.loss(0)
    handle.remove()
    x, t, context, grounding = seen[0]
    assert len(x) == 4 and grounding.batch_size == 4
    assert torch.equal(context[0], context[1]) and torch.equal(context[2], context[3])
    for keys, values in grounding.keys_values.values():
        assert torch.equal(keys[0], keys[1]) and torch.equal(values[2], values[3])
    assert len(set(t.tolist())) > 1 and not torch.equal(x[0], x[1])


def test_order_is_learned_from_the_first_step(drawn, recipe):
    task = stages.diffusion_task(recipe, drawn)
    task.loss(0)[0].backward()
    assert task.adapter.unifusion.z_order.weight.grad.abs().sum() > 0


class Brightness:
    """Scores pictures by how bright they are."""

    def __init__(self, scenes):
        self.scenes, self.seen = scenes, []

    def __call__(self, images):
        self.seen.append(np.stack(images))
        return {"brightness": float(np.mean(images))}


def test_scores_are_taken_in_time_and_disturb_nothing(drawn, recipe, world, tmp_path):
    for name in ("plain", "scored"):
        (tmp_path / name).mkdir()
        shared(drawn, tmp_path / name)
    stages.diffusion(recipe, tmp_path / "plain")
    scorer = Brightness([world.sample(1000 + k).to_scene(("box",)) for k in range(3)])
    stages.diffusion(changed(recipe, score_every=4), tmp_path / "scored", scorer=scorer)
    assert_same(weights(tmp_path / "plain"), weights(tmp_path / "scored"))
    scored = [line for line in lines(tmp_path / "scored") if "score/brightness" in line]
    assert [line["step"] for line in scored] == [4, 6]
    assert [images.shape for images in scorer.seen] == [(3, 32, 32, 3)] * 2
    assert scored[1]["score/brightness"] == pytest.approx(scorer.seen[1].mean(), abs=1e-4)
    assert not np.array_equal(*scorer.seen)  # the model has learned something, or forgotten it


def test_a_judge_can_be_the_scorer(run, recipe, world, tmp_path):
    judges = pytest.importorskip("instancediffusion.projects.emoji_judge")
    from instancediffusion.projects.emoji_judge.network import JudgeNetwork
    from instancediffusion.projects.emoji_judge.scorer import JudgeScorer

    words = {"kinds": ("disc", "gem"), "colours": ("red",), "side_px": 32}
    torch.manual_seed(0)
    network = JudgeNetwork(judges.JudgeConfig(**words, widths=(8, 8, 8, 8), depths=(0, 0, 0, 0), hidden=8))
    judges.Judge(network).save(tmp_path / "judge")
    scorer = JudgeScorer(tmp_path / "judge", world, 5)
    stages.diffusion(changed(recipe, score_every=6), run, scorer=scorer)
    (scored,) = [line for line in lines(run) if "score/missed" in line]
    assert 0 <= scored["score/missed"] <= 1
    composites = [layout.sample.image for layout in scorer._layouts]
    assert set(scorer(composites)) >= {"as_asked", "missed"}


def test_lines_of_steps_that_come_again_are_forgotten(run, recipe):
    stages.diffusion(recipe, run, stop_after=2)
    with open(run / "diffusion" / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 4, "loss": 99.0}) + "\n" + '{"step": 5, "lo')  # killed while writing
    stages.diffusion(recipe, run)
    assert [line["step"] for line in lines(run)] == [2, 4, 6]
    assert all(line["loss"] < 99 for line in lines(run))


def test_curves_and_pictures_can_be_looked_at_in_tensorboard(run, recipe):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    stages.diffusion(changed(recipe, preview_every=3), run)
    events = EventAccumulator(str(run / "diffusion" / "tensorboard"))
    events.Reload()
    assert {"loss", "learning_rate", "gate_attention", "pictures_per_second"} <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Scalars("loss")] == [2, 4, 6]
    assert [e.step for e in events.Images("preview")] == [3, 6]


PROCESS = """
import json, sys, torch
sys.path[:0] = [{tests!r}]
torch.set_num_threads(1)
from dataclasses import replace
from pathlib import Path
from training.conftest import tiny_recipe
from instancediffusion.errors import SettingsError
from instancediffusion.training import stages
from instancediffusion.training.processes import open_accelerator

def four(run):
    return replace(run, batch_size=4, log_every=1, preview_every=4)

recipe, run = tiny_recipe(), Path({run!r})
recipe = replace(
    recipe,
    diffusion=replace(recipe.diffusion, optimiser=four(recipe.diffusion.optimiser)),
    autoencoder=replace(recipe.autoencoder, decoder=four(recipe.autoencoder.decoder)),
)
accelerator = open_accelerator()
if accelerator.num_processes > 1:
    rank = accelerator.process_index
    try:
        stages.diffusion(tiny_recipe(), run)
    except SettingsError as error:
        assert "batch_size = 3" in str(error), error
    else:
        raise AssertionError("a batch of three was shared by two")
if {sharded}:
    # Accelerate shares weights out on accelerators alone, by its configuration; what it then does works here, too.
    from accelerate import FullyShardedDataParallelPlugin
    from accelerate.utils import DistributedType
    from instancediffusion.training import fit

    def sharding(folder=None):
        opened = open_accelerator(folder)
        opened.state.distributed_type = DistributedType.FSDP
        opened.state.fsdp_plugin = FullyShardedDataParallelPlugin(fsdp_version=2, cpu_ram_efficient_loading=False)
        return opened

    fit.open_accelerator = sharding
if {sharded}:
    stages.diffusion(recipe, run, stop_after=2)  # and goes on from what was gathered
stages.diffusion(recipe, run)
if not {sharded}:
    stages.decoder(recipe, run)
if accelerator.num_processes > 1:
    torch.distributed.destroy_process_group()
"""


def start(code, repository, **env):
    env = {**os.environ, "PYTHONPATH": str(repository / "src"), "OMP_NUM_THREADS": "1", **env}
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], env=env)


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True], ids=["DDP", "FSDP"])
def test_two_processes_make_the_steps_of_one(drawn, tmp_path, repository, sharded):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    children = []
    for count in (1, 2):
        run = tmp_path / f"by-{count}"
        run.mkdir()
        values = {"tests": str(repository / "tests"), "run": str(shared(drawn, run)), "sharded": sharded and count > 1}
        together = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for rank in range(count):
            own = {**together, "RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {}
            children.append(start(PROCESS.format(**values), repository, **own))
    for child in children:
        assert child.wait(timeout=300) == 0
    one, two = tmp_path / "by-1", tmp_path / "by-2"
    for stage in ("diffusion",) if sharded else ("diffusion", "decoder"):
        alone, together = lines(one, stage), lines(two, stage)
        assert [line["step"] for line in together] == [1, 2, 3, 4, 5, 6]
        for name in ("loss", "grad_norm"):
            np.testing.assert_allclose(
                [line[name] for line in together], [line[name] for line in alone], rtol=2e-5, atol=2e-6
            )
        assert (two / stage / "preview-000004.png").exists() or sharded
        first, second = (load_checkpoint(run / stage / "checkpoint.pt") for run in (one, two))
        for part in ("modules", "ema"):
            # Adam turns the rounding of a gradient that is nearly zero into a step of either sign: compare the whole.
            alone, together = (torch.cat([v.flatten().double() for v in tensors(of[part])]) for of in (first, second))
            assert (together - alone).norm() < 1e-3 * alone.norm(), part


@pytest.mark.parametrize(
    ("configured", "algorithm", "told"),
    [
        ({"distributed_type": "DEEPSPEED"}, "adamw", "DeepSpeed: it is not supported"),
        ({"distributed_type": "FSDP", "is_fsdp2": False}, "adamw", "set fsdp_version: 2"),
        ({"distributed_type": "FSDP", "is_fsdp2": True}, "muon", "set algorithm = 'adamw'"),
    ],
)
def test_what_accelerate_is_configured_for_and_cannot_be_is_refused(configured, algorithm, told):
    task = SimpleNamespace(modules={"line": torch.nn.Linear(2, 2)}, loss=None)
    adam = optimiser(task.modules, OptimiserConfig(algorithm=algorithm))
    with pytest.raises(SettingsError, match=told):
        prepare(SimpleNamespace(**configured), task, adam)


def tensors(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [one for item in value for one in tensors(item)]
    return [value] if torch.is_tensor(value) else []


def test_any_task_of_the_four_methods_can_be_trained(tmp_path, recipe):
    """The loop asks no more of a task than modules, loss, preview and state."""

    class Line:
        def __init__(self):
            torch.manual_seed(0)
            self.modules = {"line": torch.nn.Linear(1, 1)}

        def loss(self, step):
            x = torch.linspace(-1, 1, 16)[:, None]
            return (self.modules["line"](x) - 2 * x - 1).square().mean(), {}

        def preview(self, step, path):
            pass

        def state(self):
            return {}

        def load_state(self, state):
            pass

    task, run = Line(), replace(recipe.diffusion.optimiser, steps=300, learning_rate=3e-2, preview_every=100)
    fit(task, run, tmp_path, {})
    assert task.loss(0)[0] < 1e-3
