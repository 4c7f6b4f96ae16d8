from dataclasses import replace

import numpy as np
import pytest

from instancediffusion.projects.emoji_world import BACKGROUNDS, ObjectKind, SpriteBook, World, WorldSpec
from instancediffusion.training import stages
from instancediffusion.training.config import (
    AutoencoderConfig,
    DiffusionConfig,
    OptimiserConfig,
    Recipe,
    TextConfig,
    UNetConfig,
    WorldConfig,
)
from instancediffusion.training.export import export


def home_made_world(size: int = 32) -> World:
    """Two drawings of our own, so that no art has to be fetched."""
    y, x = (np.mgrid[:48, :48] + 0.5) / 24 - 1
    art = {}
    for name, filled, colour in (
        ("disc", np.hypot(x, y) < 1, (230, 40, 30)),
        ("gem", abs(x) + abs(y) < 1, (40, 90, 230)),
    ):
        art[name] = np.zeros((48, 48, 4), np.uint8)
        art[name][..., :3], art[name][..., 3] = colour, filled * 255
    kinds = (ObjectKind("disc", "disc", stands=False), ObjectKind("gem", "gem"))
    return World(SpriteBook(kinds, art), WorldSpec(size=size, max_objects=3, min_scale=0.3), BACKGROUNDS)


def tiny_recipe() -> Recipe:
    run = OptimiserConfig(steps=6, batch_size=3, warmup=2, checkpoint_every=2, log_every=2, precision="fp32")
    return Recipe(
        name="tiny",
        world=WorldConfig(scenes=20, shard=8, max_instances=4, region_px=16),
        autoencoder=AutoencoderConfig(
            block_out_channels=(12, 12, 24),
            latent_channels=4,
            discriminator_channels=(8, 8),
            adversary_warmup=1,
            optimiser=run,
            decoder=run,
        ),
        text=TextConfig(vocabulary=600, length=24, width=16, layers=1, heads=2, optimiser=run),
        unet=UNetConfig(block_out_channels=(32, 32), head_channels=16, sample_size=8),
        adapter={"hidden_dim": 16, "frequencies": 4, "slots": 8},
        diffusion=DiffusionConfig(optimiser=replace(run, learning_rate=1e-3)),
    )


@pytest.fixture(scope="session")
def world():
    return home_made_world()


@pytest.fixture(scope="session")
def recipe():
    return tiny_recipe()


@pytest.fixture(scope="session")
def drawn(tmp_path_factory, recipe, world):
    """A run whose scenes are drawn and encoded, with its autoencoder and its text model."""
    run = tmp_path_factory.mktemp("run")
    stages.scenes(recipe, run, world)
    stages.autoencoder(recipe, run)
    stages.latents(recipe, run)
    stages.text(recipe, run)
    return run


def shared(drawn, run):
    """Make `run` share what `drawn` holds."""
    for name in ("scenes", "autoencoder", "text"):
        (run / name).symlink_to(drawn / name)
    return run


@pytest.fixture(scope="session")
def exported(drawn, recipe, world, tmp_path_factory):
    """A run whose stages are all trained, and its exported model."""
    run = shared(drawn, tmp_path_factory.mktemp("all"))
    stages.diffusion(recipe, run)
    stages.decoder(recipe, run)
    export(recipe, run, run / "export", world)
    return run


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A model folder laid out as that of Stable Diffusion 1.5, which predicts noise; its adapter is not used."""
    from tests.tiny_pipeline import tiny_pipeline  # here, since other processes import this file from elsewhere

    folder = tmp_path_factory.mktemp("base")
    tiny_pipeline(folder / "characters").save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture
def run(drawn, tmp_path):
    """A run of one's own that shares the drawn scenes."""
    return shared(drawn, tmp_path)
