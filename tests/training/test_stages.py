import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from instancediffusion.data import SceneCache
from instancediffusion.errors import SettingsError
from instancediffusion.scene.completion import CaptionCompletion
from instancediffusion.training import stages
from instancediffusion.training.frozen import freeze
from instancediffusion.training.scenes import record


def test_losses_are_logged(exported):
    for stage in ("decoder", "text", "diffusion"):
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
    assert index["caption_choices"] == world.caption_choices()


def test_covered_cells_weigh_more_in_a_step(exported, recipe):
    weighing = replace(recipe, diffusion=replace(recipe.diffusion, object_weight=50.0, noise_draws=3))
    plain = replace(recipe, diffusion=replace(recipe.diffusion, noise_draws=3))
    with torch.no_grad():
        one, other = (stages.diffusion_task(some, exported).loss(0)[0] for some in (weighing, plain))
    assert torch.isfinite(one) and not torch.isclose(one, other, rtol=1e-3)


def test_a_recipe_whose_autoencoder_is_too_narrow_is_refused_before_anything_is_encoded(drawn, recipe, tmp_path):
    (tmp_path / "scenes").symlink_to(drawn / "scenes")
    narrow = replace(recipe, autoencoder=replace(recipe.autoencoder, block_out_channels=(8, 8, 16)))
    with pytest.raises(SettingsError, match=r"block_out_channels = \[8, 8, 16\]: 8 channels cannot hold"):
        stages.latents(narrow, tmp_path)
    assert not (tmp_path / stages.CODE).exists()


def test_preview_is_drawn(exported, recipe, tmp_path):
    task = stages.diffusion_task(recipe, exported)
    with torch.no_grad():
        task.preview(0, tmp_path / "a.png")
        task.preview(0, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_stages_out_of_order_say_what_is_missing(recipe, tmp_path):
    for stage in (stages.latents, stages.text, stages.diffusion):
        with pytest.raises(SettingsError, match="run the"):
            stage(recipe, tmp_path)


def test_captions_to_learn_from_say_what_the_worlds_own_leave_open(drawn, world):
    """A sprite learned from captions that leave the colour open is the mean of all colours."""
    completion = CaptionCompletion({noun: {"colours": ["red", "blue"]} for noun in ("disc", "gem")})
    sample = world.sample(0)
    red = replace(sample, instances=tuple(replace(item, colour="red") for item in sample.instances))
    kept = [instance.captions for instance in record(red, 8, completion).instances]
    assert kept == [(f"a red {item.name}",) for item in sample.instances]
    assert SceneCache(drawn / "scenes").texts(0)[1] == [[item.caption] for item in sample.instances]
