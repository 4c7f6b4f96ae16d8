"""A run that is stopped, or killed at any moment, ends with the same bits as one that is not."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from instancediffusion.errors import CheckpointError
from instancediffusion.training import stages
from instancediffusion.training.checkpoint import load_checkpoint

from .conftest import shared

CHILD = """
import sys, torch
sys.path[:0] = [{tests!r}]
torch.set_num_threads(1)
from pathlib import Path
from training.conftest import tiny_recipe
from instancediffusion.training import stages
stages.diffusion(tiny_recipe(), Path({run!r}))
"""


def final(run):
    return load_checkpoint(run / "diffusion" / "checkpoint.pt")


def flat(value, path=""):
    if isinstance(value, dict):
        return {k: v for name, item in value.items() for k, v in flat(item, f"{path}.{name}").items()}
    if isinstance(value, list):
        return {k: v for number, item in enumerate(value) for k, v in flat(item, f"{path}.{number}").items()}
    return {path: value}


def assert_same(first, second):
    first, second = flat(first), flat(second)
    assert first.keys() == second.keys()
    for name, value in first.items():
        same = torch.equal(value, second[name]) if torch.is_tensor(value) else value == second[name]
        assert same, name


@pytest.fixture(scope="module")
def unbroken(drawn, recipe, tmp_path_factory):
    run = shared(drawn, tmp_path_factory.mktemp("unbroken"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    stages.diffusion(recipe, run)
    torch.set_num_threads(threads)
    return run


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("after", [1, 3])
def test_stopped_run_continues_to_the_same_bits(run, recipe, unbroken, after):
    stages.diffusion(recipe, run, stop_after=after)
    assert final(run)["step"] == after
    stages.diffusion(recipe, run)
    assert_same(final(run), final(unbroken))


def test_killed_run_continues_to_the_same_bits(run, recipe, unbroken, repository):
    code = CHILD.format(tests=str(repository / "tests"), run=str(run))
    env = {**os.environ, "PYTHONPATH": str(repository / "src"), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], env=env)
    deadline = time.monotonic() + 120
    while not (run / "diffusion" / "checkpoint.pt").exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert final(run) is not None
    stages.diffusion(recipe, run)
    assert_same(final(run), final(unbroken))


def test_other_settings_are_refused_and_named(run, recipe):
    stages.diffusion(recipe, run, stop_after=1)
    other = replace(recipe, diffusion=replace(recipe.diffusion, drop_prompt=0.5))
    with pytest.raises(CheckpointError, match=r"diffusion\.drop_prompt"):
        stages.diffusion(other, run)


def test_more_steps_are_not_other_settings(run, recipe):
    stages.diffusion(recipe, run, stop_after=1)
    longer = replace(recipe.diffusion, optimiser=replace(recipe.diffusion.optimiser, steps=7))
    stages.diffusion(replace(recipe, diffusion=longer), run, stop_after=1)
    assert final(run)["step"] == 2


def test_a_checkpoint_with_code_in_it_is_refused(run, recipe):
    folder = run / "diffusion"
    folder.mkdir()
    torch.save({"format": 1, "recipe": os.system}, folder / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        stages.diffusion(recipe, run)
