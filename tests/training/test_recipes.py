"""The recipes of the repository: they can be read, fit the model they start from, and run when they are shrunken."""

import json
from dataclasses import replace

import pytest
import torch

from instancediffusion.checkpoints import mini_folder, model_defaults
from instancediffusion.errors import SettingsError
from instancediffusion.training import fit, stages
from instancediffusion.training.checkpoint import load_checkpoint, save_checkpoint
from instancediffusion.training.config import read_recipe

NAMES = ("mini_small", "mini", "mini-gpu", "finetune", "adapter", "mini_few_steps", "mini_two_steps", "published_parts")


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


def test_a_recipe_on_top_of_others_is_the_one_that_states_all(tmp_path):
    """Table by table, lists whole, with what is left out at its default; bit for bit."""
    for name, text in {
        "first": 'name = "a"\n[world]\nscenes = 9\nshard = 3\n[world.options]\nsize = 128\nmax_objects = 2\n'
        "[unet]\nblock_out_channels = [32, 64]\nsample_size = 8\n[text.words]\nsteps = 7\n[reached]\nclass = 0.9\n",
        "second": 'base = "first.toml"\nwithout = ["text.words", "world.shard"]\nname = "b"\n'
        "[world.options]\nmax_objects = 3\n[unet]\nblock_out_channels = [16]\n",
        "third": 'base = "second.toml"\n[diffusion.optimiser]\nlearning_rate = 3e-4\n',
        "whole": 'name = "b"\n[world]\nscenes = 9\n[world.options]\nsize = 128\nmax_objects = 3\n'
        "[unet]\nblock_out_channels = [16]\nsample_size = 8\n[diffusion.optimiser]\nlearning_rate = 3e-4\n",
    }.items():
        (tmp_path / f"{name}.toml").write_text(text)
    whole = read_recipe(tmp_path / "whole.toml")
    third = read_recipe(tmp_path / "third.toml")
    assert json.dumps(third.to_dict()) == json.dumps(whole.to_dict())
    assert read_recipe(tmp_path / "first.toml").reached and not third.reached


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('base = "none.toml"', r"none\.toml: No such file"),
        ('base = "a.toml"', "extends itself"),
        ('base = "b.toml"', "extends itself"),
        ("base = 3", 'write base = "file.toml"'),
        ('without = ["text"]', "there is no base"),
        ('base = "c.toml"\nwithout = ["text.words"]', r"c\.toml has no 'text\.words'"),
        ('base = "c.toml"\nwithout = ["name.text"]', r"c\.toml has no 'name\.text'"),
    ],
)
def test_a_base_that_cannot_be_had_is_named(tmp_path, text, told):
    (tmp_path / "a.toml").write_text(text)
    (tmp_path / "b.toml").write_text('base = "a.toml"')
    (tmp_path / "c.toml").write_text('name = "c"')
    with pytest.raises(SettingsError, match=told):
        read_recipe(tmp_path / "a.toml")


def test_the_adapter_is_trained_on_pictures_of_its_base(read):
    recipe = read("adapter")
    folder = mini_folder()
    sides = json.loads((folder / "unet" / "config.json").read_text())["sample_size"]
    levels = len(json.loads((folder / "vae" / "config.json").read_text())["block_out_channels"])
    assert recipe.diffusion.base == "mini"
    side = sides * 2 ** (levels - 1)
    assert recipe.world.options["size"] == side
    assert [list(size) for size in recipe.dataset.sizes] == [[side, side]]


def test_the_first_half_has_every_stage(read):
    small = read("mini_small")
    assert set(stages.names(small)) == set(stages.STAGES)


def test_the_published_parts_alone_differ_from_mini_in_nothing_else(read):
    """The same scenes, UNet, text and objective, so that a difference of the scores is the additions'."""
    small, published = read("mini_small"), read("published_parts")
    added = {"relative_values", "token_weight", "caption_shortcut"}
    assert published.adapter == {name: value for name, value in small.adapter.items() if name not in added}
    assert (published.world, published.unet) == (small.world, small.unet)
    assert published.locations.no_order == 1 and published.diffusion.instance_mask == "grounding"
    same = {"instance_mask": "grounding", "hard_mask": 0.0, "optimiser": published.diffusion.optimiser}
    assert replace(small.diffusion, **same) == published.diffusion
    assert stages.names(published) == ("scenes", "latents", "diffusion", "export")
    assert json.loads((mini_folder() / "unet" / "config.json").read_text())["block_out_channels"] == list(
        published.unet.block_out_channels
    )


@pytest.mark.parametrize("name", ["mini_few_steps", "mini_two_steps"])
def test_students_of_mini_learn_from_no_coarser_sampler_than_its_own(read, name):
    recipe = read(name)
    config = recipe.distillation
    assert config.teacher == "mini" and stages.names(recipe) == stages.DISTILLATION_STAGES
    assert config.steps * config.substeps >= model_defaults(mini_folder()).num_inference_steps


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

    monkeypatch.setattr(fit, "save_checkpoint", keep)
    stages.diffusion(shrunken, tmp_path)
    assert kept == [1, 2]
    state = load_checkpoint(tmp_path / "diffusion" / "checkpoint.pt")
    assert all(torch.isfinite(value).all() for value in state["modules"]["unet"].values())
