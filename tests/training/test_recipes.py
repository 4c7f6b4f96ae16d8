"""The recipes of the repository: they can be read, fit the model they start from, and run when they are shrunken."""

import json
from dataclasses import replace

import pytest
import torch

from instancediffusion.training import loop, stages
from instancediffusion.training.checkpoint import load_checkpoint, save_checkpoint
from instancediffusion.training.config import read_recipe

NAMES = ("mini_small", "mini", "mini-gpu", "finetune", "adapter")


@pytest.fixture
def read(repository):
    return lambda name: read_recipe(repository / "recipes" / f"{name}.toml")


def test_all_can_be_read(repository, read):
    judge = "judge"  # another kind of recipe, read by tests of its own
    assert {path.stem for path in (repository / "recipes").glob("*.toml")} == {*NAMES, judge}
    for name in NAMES:
        json.dumps(read(name).to_dict())


@pytest.mark.parametrize("name", ["mini", "mini-gpu", "finetune"])
def test_what_goes_on_from_an_export_has_its_architecture(read, name):
    small, whole = read("mini_small"), read(name)
    assert whole.start == ("runs/mini-small/export" if name == "mini" else "runs/mini/export")
    assert small.adapter == whole.adapter
    assert replace(small.text, words=whole.text.words, optimiser=whole.text.optimiser) == whole.text
    assert replace(small.unet, sample_size=whole.unet.sample_size) == whole.unet
    assert (small.autoencoder.latent_channels, small.autoencoder.patch) == (
        whole.autoencoder.latent_channels,
        whole.autoencoder.patch,
    )


def test_the_first_half_has_every_stage(read):
    small = read("mini_small")
    assert set(stages.names(small)) == set(stages.STAGES)


def test_ten_minutes_of_a_gpu_run_in_small(read, recipe, exported, world, tmp_path, monkeypatch):
    """All of the recipe but its sizes, on a processor: both resolutions, with a checkpoint by the clock after each."""
    gpu = read("mini-gpu")
    first, second = gpu.diffusion.stages
    optimiser = replace(gpu.diffusion.optimiser, steps=2, batch_size=4, checkpoint_minutes=1e-9, preview_every=0)
    shrunken = replace(
        gpu,
        start=str(exported / "export"),
        world=recipe.world,
        autoencoder=recipe.autoencoder,
        text=recipe.text,
        unet=recipe.unet,
        adapter=recipe.adapter,
        diffusion=replace(
            gpu.diffusion,
            stages=(
                replace(first, sample_size=4, batch_size=8),
                replace(second, from_step=1, sample_size=8, batch_size=4),
            ),
            optimiser=optimiser,
        ),
    )
    stages.scenes(shrunken, tmp_path, world)
    stages.latents(shrunken, tmp_path)
    kept = []

    def keep(path, state):
        kept.append(state["step"])
        save_checkpoint(path, state)

    monkeypatch.setattr(loop, "save_checkpoint", keep)
    stages.diffusion(shrunken, tmp_path)
    assert kept == [1, 2]
    state = load_checkpoint(tmp_path / "diffusion" / "checkpoint.pt")
    assert all(torch.isfinite(value).all() for value in state["modules"]["unet"].values())
