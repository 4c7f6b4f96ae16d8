from dataclasses import replace

import pytest
import torch

from instancediffusion.errors import SettingsError
from instancediffusion.training import stages
from instancediffusion.training.cells import _sides
from instancediffusion.training.config import OptimiserConfig


@pytest.fixture
def with_cells(recipe):
    run = OptimiserConfig(steps=40, batch_size=8, learning_rate=5e-3, warmup=2, checkpoint_every=40, precision="fp32")
    return replace(recipe, adapter={**recipe.adapter, "cell_features": 16}, cells=run)


def test_cell_features_learn_what_the_latents_of_instances_show(with_cells, run):
    before = stages.cells_task(with_cells, run)
    stages.cells(with_cells, run)
    after = stages.cells_task(with_cells, run)
    stages.freeze(after, with_cells.cells, run / "cells")
    with torch.no_grad():
        first, then = (sum(task.loss(1000 + k)[1]["unexplained"] for k in range(4)) / 4 for task in (before, after))
    assert first > 0.9 and then < 0.6


def test_the_diffusion_stage_starts_from_them_and_learns_on(with_cells, run):
    stages.cells(with_cells, run)
    learned = stages.cells_task(with_cells, run)
    stages.freeze(learned, with_cells.cells, run / "cells")
    task = stages.diffusion_task(with_cells, run)
    pairs = list(zip(task.adapter.cells.parameters(), learned.cells.parameters(), strict=True))
    assert all(torch.equal(a, b) and a.requires_grad for a, b in pairs)
    stages.diffusion(with_cells, run)
    assert (run / "diffusion" / "checkpoint.pt").exists()


def test_recipes_without_cell_features_have_no_such_stage(recipe, with_cells, run):
    assert "cells" in stages.names(with_cells) and "cells" not in stages.names(recipe)
    with pytest.raises(SettingsError, match="cell_features = 0"):
        stages.cells_task(recipe, run)


def test_a_cell_of_patched_latents_holds_the_codes_of_its_blocks(recipe, drawn, run):
    patched = replace(
        recipe, autoencoder=replace(recipe.autoencoder, patch=2), unet=replace(recipe.unet, sample_size=4)
    )
    own = run.parent / "patched"
    own.mkdir()
    (own / stages.CODE).symlink_to(drawn / stages.CODE)
    (own / "text").symlink_to(drawn / "text")
    for shard in sorted((drawn / "scenes").iterdir()):
        (own / "scenes" / shard.name).mkdir(parents=True)
        for file in shard.iterdir():
            if not file.name.startswith("latents"):
                (own / "scenes" / shard.name / file.name).symlink_to(file)
    stages.latents(patched, own)
    fine, coarse = stages.diffusion_task(recipe, run), stages.diffusion_task(patched, own)
    codes, cells = (torch.from_numpy(task.cache.rows("latents", [0, 5])).float() for task in (fine, coarse))
    torch.testing.assert_close(torch.nn.functional.pixel_shuffle(cells, 2), codes, atol=2e-3, rtol=2e-3)
    assert coarse.unet.config.in_channels == 16
    torch.testing.assert_close(coarse.parts.decode(cells), fine.parts.decode(codes), atol=1e-2, rtol=0)
    assert torch.isfinite(coarse.loss(0)[0])


def test_a_side_is_read_from_captions_that_tell_one():
    captions = {"a {red} cat facing left", "a cat looking to the right", "a cat left and right", "a leftover"}
    assert _sides(captions) == [
        ("a cat looking to the left", "a cat looking to the right"),
        ("a {red} cat facing left", "a {red} cat facing right"),
    ]
