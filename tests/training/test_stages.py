import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from instancediffusion.errors import SettingsError
from instancediffusion.projects.emoji_world import BACKGROUNDS, World
from instancediffusion.training import stages
from instancediffusion.training.checkpoint import freeze


def test_losses_are_logged(exported):
    for stage in ("autoencoder", "text", "decoder", "diffusion"):
        lines = [json.loads(line) for line in (exported / stage / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [2, 4, 6]
        assert all(np.isfinite(line["loss"]) and line["pictures"] == 3 * line["step"] for line in lines)
    assert {"gate_attention", "gate_dense"} <= lines[0].keys()


def test_exported_folder_opens_as_the_pipeline_and_draws(exported, world):
    from instancediffusion.pipeline import InstanceDiffusionPipeline

    pipe = InstanceDiffusionPipeline.from_pretrained(exported / "export", torch_dtype=torch.float32)
    scene = world.sample(3).to_scene(("box", "mask"))
    out = pipe(scene, seed=0, num_inference_steps=3, mis_fraction=0.0)
    assert out.images[0].size == (32, 32)
    assert pipe.scheduler.config.prediction_type == "v_prediction"


def test_exported_weights_are_the_running_mean(exported, recipe):
    from safetensors.torch import load_file

    task = stages.diffusion_task(recipe, exported)
    assert freeze(task, recipe.diffusion.optimiser, exported / "diffusion") == 6
    kept = load_file(exported / "export" / "unet" / "diffusion_pytorch_model.safetensors")
    for name, value in task.unet.state_dict().items():
        assert kept[name].dtype == torch.float16
        torch.testing.assert_close(kept[name].float(), value, atol=1e-3, rtol=1e-3)


def test_card_tells_what_the_model_knows(exported, world):
    card = json.loads((exported / "export" / "card.json").read_text())
    assert card["objects"] == ["disc", "gem"] and card["steps"]["diffusion"] == 6 and card["licence"] == "Apache-2.0"
    assert card["pictures_seen"]["diffusion"] == 18
    index = json.loads((exported / "export" / "model_index.json").read_text())
    assert index["vocabulary"] == list(world.vocabulary())


def test_covered_cells_weigh_more_in_a_step(exported, recipe):
    weighing = replace(recipe, diffusion=replace(recipe.diffusion, object_weight=50.0, noise_draws=3))
    plain = replace(recipe, diffusion=replace(recipe.diffusion, noise_draws=3))
    with torch.no_grad():
        one, other = (stages.diffusion_task(some, exported).loss(0)[0] for some in (weighing, plain))
    assert torch.isfinite(one) and not torch.isclose(one, other, rtol=1e-3)


def test_a_cell_of_the_unet_holds_the_latents_of_its_patch(recipe, drawn, run):
    patched = replace(
        recipe, autoencoder=replace(recipe.autoencoder, patch=2), unet=replace(recipe.unet, sample_size=4)
    )
    own = run.parent / "patched"
    (own / "scenes").mkdir(parents=True)
    (own / "autoencoder").symlink_to(drawn / "autoencoder")
    (own / "text").symlink_to(drawn / "text")
    for shard in sorted((drawn / "scenes").iterdir()):
        (own / "scenes" / shard.name).mkdir()
        for file in shard.iterdir():
            if not file.name.startswith("latents"):
                (own / "scenes" / shard.name / file.name).symlink_to(file)
    stages.latents(patched, own)
    fine, coarse = stages.diffusion_task(recipe, run), stages.diffusion_task(patched, own)
    codes, cells = (torch.from_numpy(task.cache.rows("latents", [0, 5])).float() for task in (fine, coarse))
    torch.testing.assert_close(torch.nn.functional.pixel_shuffle(cells, 2), codes, atol=2e-3, rtol=2e-3)
    assert coarse.unet.config.in_channels == 16
    torch.testing.assert_close(coarse.parts.latents.decode(cells), fine.parts.latents.decode(codes), atol=1e-2, rtol=0)
    assert torch.isfinite(coarse.loss(0)[0])


def test_scenes_that_are_not_square_are_learned_from(recipe, world, tmp_path):
    wide = World(world.sprites, replace(world.spec, aspect=1.5), BACKGROUNDS)
    stages.scenes(recipe, tmp_path, wide)
    for stage in (stages.autoencoder, stages.latents, stages.text, stages.diffusion):
        stage(recipe, tmp_path)
    task = stages.diffusion_task(recipe, tmp_path)
    assert wide.spec.canvas == (24, 40) and task.cache.rows("latents", [0]).shape == (1, 4, 6, 10)
    assert torch.isfinite(task.loss(0)[0])


def test_a_picture_that_is_no_whole_number_of_cells_is_refused(recipe, run):
    coarse = replace(recipe, autoencoder=replace(recipe.autoencoder, patch=3))
    with pytest.raises(SettingsError, match="size = 32: expected a multiple of 12"):
        stages.latents(coarse, run)


def test_preview_is_drawn(exported, recipe, tmp_path):
    task = stages.diffusion_task(recipe, exported)
    with torch.no_grad():
        task.preview(0, tmp_path / "a.png")
        task.preview(0, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_stages_out_of_order_say_what_is_missing(recipe, tmp_path):
    for stage in (stages.autoencoder, stages.latents, stages.text, stages.diffusion):
        with pytest.raises(SettingsError, match="run the"):
            stage(recipe, tmp_path)
