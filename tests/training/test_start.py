"""A run that goes on from a finished model, with scenes of its own."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from instancediffusion.data import SceneCache
from instancediffusion.errors import SettingsError
from instancediffusion.training import stages
from instancediffusion.training.config import OptimiserConfig
from instancediffusion.training.export import export
from instancediffusion.training.pretrained import load_start


@pytest.fixture(scope="module")
def finished(exported):
    """A finished model to go on from."""
    return exported / "export"


@pytest.fixture(scope="module")
def going_on(recipe, finished, world, tmp_path_factory):
    """A run that starts there; scenes drawn and encoded."""
    recipe = replace(
        recipe,
        start=str(finished),
        world=replace(recipe.world, first_seed=100),
        autoencoder=replace(recipe.autoencoder, decoder=OptimiserConfig()),
    )
    run = tmp_path_factory.mktemp("on")
    stages.scenes(recipe, run, world)
    stages.latents(recipe, run)
    return recipe, run


def test_latents_are_those_of_the_starts_autoencoder(going_on, finished):
    from diffusers import AutoencoderKL

    _, run = going_on
    vae = AutoencoderKL.from_pretrained(finished / "vae")
    cache = SceneCache(run / "scenes", need_latents=True)
    x = torch.from_numpy(cache.image(3).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        expected = vae.encode(x).latent_dist.mode() * vae.config.scaling_factor
    torch.testing.assert_close(torch.from_numpy(cache.rows("latents", [3])).float(), expected, atol=5e-3, rtol=2e-3)


def test_the_first_step_is_the_finished_models_own(going_on, finished):
    recipe, run = going_on
    task = stages.diffusion_task(recipe, run)
    for part, module in (("unet", task.unet), ("adapter", task.adapter)):
        kept = load_file(finished / part / "diffusion_pytorch_model.safetensors")
        assert all(torch.equal(value, kept[name].float()) for name, value in module.state_dict().items())
    kept = load_file(finished / "text_encoder" / "model.safetensors")
    named = {f"text_model.{name.removeprefix('text_model.')}": v for name, v in task.text.model.named_parameters()}
    assert kept.keys() == named.keys()  # as published models name them, which every version of transformers reads
    assert all(torch.equal(kept[name].float(), value) for name, value in named.items())


def test_a_run_from_a_start_learns_and_exports(going_on, finished, world):
    from instancediffusion.pipeline import InstanceDiffusionPipeline

    recipe, run = going_on
    assert stages.names(recipe) == ("scenes", "latents", "diffusion", "export")
    stages.diffusion(recipe, run)
    export(recipe, run, run / "export", world)
    card = json.loads((run / "export" / "card.json").read_text())
    before = json.loads((finished / "card.json").read_text())
    assert card["started_from_sha256"] == before["weights_sha256"] != card["weights_sha256"]
    assert card["steps"] == {**before["steps"], "diffusion": 12}
    for part in ("vae/diffusion_pytorch_model", "text_encoder/model"):
        old, new = (load_file(folder / f"{part}.safetensors") for folder in (finished, run / "export"))
        assert all(torch.equal(value, new[name]) for name, value in old.items())
    pipe = InstanceDiffusionPipeline.from_pretrained(run / "export", torch_dtype=torch.float32)
    out = pipe(world.sample(3).to_scene(("box",)), seed=0, num_inference_steps=2, mis_fraction=0.0)
    assert out.images[0].size == (32, 32)


def test_new_networks_learn_with_the_starts_autoencoder_and_text_model(going_on, finished, world, tmp_path):
    """What a part is worth is seen by a run without it; only the latents and features have to be the same."""
    recipe, run = going_on
    recipe = replace(recipe, start_networks=False, unet=replace(recipe.unet, layers_per_block=2))
    assert "relative" not in stages.names(recipe)
    assert "relative" in stages.names(replace(recipe, adapter={**recipe.adapter, "relative_values": 8}))
    new = tmp_path / "new"
    new.mkdir()
    (new / "scenes").symlink_to(run / "scenes")  # the same autoencoder, the same latents
    task = stages.diffusion_task(recipe, new)
    kept = load_file(finished / "unet" / "diffusion_pytorch_model.safetensors")
    own = task.unet.state_dict()
    assert not any(torch.equal(value.float(), own[name]) for name, value in kept.items() if value.ndim > 1)
    stages.diffusion(recipe, new)
    export(recipe, new, new / "export", world)
    card, before = (json.loads((folder / "card.json").read_text()) for folder in (new / "export", finished))
    assert card["steps"]["diffusion"] == recipe.diffusion.optimiser.steps
    assert card["pictures_seen"]["autoencoder"] == before["pictures_seen"]["autoencoder"]
    for part in ("vae/diffusion_pytorch_model", "text_encoder/model"):
        old, same = (load_file(folder / f"{part}.safetensors") for folder in (finished, new / "export"))
        assert all(torch.equal(value, same[name]) for name, value in old.items())


def test_without_a_start_no_networks_can_be_left_out(recipe):
    with pytest.raises(SettingsError, match="start_networks = false: there is no start"):
        replace(recipe, start_networks=False)


@pytest.mark.parametrize("change", [{"block_out_channels": (32, 64)}, {"layers_per_block": 2}])
def test_another_architecture_is_refused(going_on, change):
    recipe, run = going_on
    with pytest.raises(SettingsError, match=r"start: .*unet"):
        stages.diffusion_task(replace(recipe, unet=replace(recipe.unet, **change)), run)


def test_weights_of_another_module_are_refused(finished):
    with pytest.raises(SettingsError, match="another architecture"):
        load_start(nn.Linear(2, 2), finished, "unet")


def test_a_folder_that_is_no_whole_model_is_no_start(recipe, finished, run, tmp_path):
    partial = tmp_path / "partial"
    shutil.copytree(finished, partial)
    shutil.rmtree(partial / "vae")
    for start in (partial, tmp_path / "nowhere"):
        with pytest.raises(SettingsError, match=r"has no vae.*; give the folder of an export"):
            stages.latents(replace(recipe, start=str(start)), run)
