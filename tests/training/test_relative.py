"""The relative stage: box-relative features learn what latents show before they guide a denoiser."""

from dataclasses import replace

import pytest
import torch

from instancediffusion.errors import SettingsError
from instancediffusion.training import stages
from instancediffusion.training.config import OptimiserConfig


@pytest.fixture
def placed(recipe):
    run = OptimiserConfig(
        steps=80, batch_size=8, learning_rate=1e-2, warmup=2, checkpoint_every=80, precision="fp32", ema_decay=0.9
    )
    return replace(recipe, adapter={**recipe.adapter, "relative_values": 32}, relative=run)


def test_relative_features_learn_what_the_latents_of_instances_show(placed, run):
    before = stages.relative_task(placed, run)
    stages.relative(placed, run)
    after = stages.relative_task(placed, run)
    stages.freeze(after, placed.relative, run / "relative")
    with torch.no_grad():
        first, then = (sum(task.loss(1000 + k)[1]["unexplained"] for k in range(4)) / 4 for task in (before, after))
    assert first > 0.9 and then < 0.8


def test_the_diffusion_stage_starts_from_them_and_learns_on(placed, run):
    stages.relative(placed, run)
    learned = stages.relative_task(placed, run)
    stages.freeze(learned, placed.relative, run / "relative")
    task = stages.diffusion_task(placed, run)
    pairs = list(zip(task.adapter.relative.parameters(), learned.features.parameters(), strict=True))
    assert all(torch.equal(a, b) and a.requires_grad for a, b in pairs)
    stages.diffusion(placed, run)
    assert (run / "diffusion" / "checkpoint.pt").exists()


def test_recipes_without_box_relative_values_have_no_such_stage(recipe, placed, run):
    assert "relative" in stages.names(placed) and "relative" not in stages.names(recipe)
    with pytest.raises(SettingsError, match="relative_values = 0"):
        stages.relative_task(recipe, run)
