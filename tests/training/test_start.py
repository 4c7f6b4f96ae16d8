"""A run that goes on from a finished model, with scenes of its own and wider latents."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

from instancediffusion.errors import SettingsError
from instancediffusion.training import stages
from instancediffusion.training.blocks import BlockCode
from instancediffusion.training.export import export
from instancediffusion.training.start import load_start

from .encoders import encoder_error

WIDTH = 4
WIDER = 6


@pytest.fixture(scope="module")
def finished(exported):
    """A finished model to go on from."""
    return exported / "export"


@pytest.fixture(scope="module")
def going_on(recipe, finished, drawn, world, tmp_path_factory):
    """A run that starts there, with two more channels in its latents; scenes drawn and encoded."""
    recipe = replace(
        recipe, start=str(finished), autoencoder=replace(recipe.autoencoder, latent_channels=WIDER, crop_px=16)
    )
    run = tmp_path_factory.mktemp("wider")
    stages.scenes(recipe, run, world)
    stages.latents(recipe, run)
    return recipe, run


def test_old_channels_of_wider_latents_are_the_old_latents(going_on, finished):
    _, run = going_on
    old, wide = BlockCode.load(finished / stages.CODE), BlockCode.load(run / stages.CODE)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(wide.encode(images)[:, :WIDTH], old.encode(images))
    torch.testing.assert_close(wide.basis @ wide.basis.T, torch.eye(WIDER), atol=1e-5, rtol=0)


def test_more_channels_keep_more_of_the_pictures():
    images = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    code = BlockCode.measure(images, 4, 8, 0.5)
    wide = code.widened(images, 8, 0.5)

    def lost(some: BlockCode) -> float:
        return float((some.decode(some.encode(images)) - images).square().mean())

    assert lost(wide) < lost(code)
    # As good as if it had been measured in one go, on the same pictures.
    assert lost(wide) == pytest.approx(lost(BlockCode.measure(images, 8, 8, 0.5)), rel=1e-3)
    with pytest.raises(ValueError, match="has 4 already"):
        code.widened(images, 2)


def test_the_first_step_is_the_finished_models_own(going_on, finished, recipe, drawn):
    """New channels come in as zeros and go out as zeros: what the finished model predicts, it still predicts."""
    wider, run = going_on
    new = stages.diffusion_task(wider, run)
    same = replace(wider, autoencoder=replace(wider.autoencoder, latent_channels=WIDTH))
    old = stages._parts(same, finished)
    x = torch.randn(1, WIDER, 8, 8)
    context = torch.zeros(1, 24, 16)
    for module in (new.unet, old.unet):
        module.eval()
    with torch.no_grad():
        wide = new.unet(x, torch.tensor([5]), encoder_hidden_states=context).sample
        narrow = old.unet(x[:, :WIDTH], torch.tensor([5]), encoder_hidden_states=context).sample
    torch.testing.assert_close(wide[:, :WIDTH], narrow, atol=1e-5, rtol=1e-4)
    assert (wide[:, WIDTH:] == 0).all()


def test_a_run_from_a_start_learns_and_exports(going_on, finished, world):
    from instancediffusion.pipeline import InstanceDiffusionPipeline

    recipe, run = going_on
    assert stages.names(recipe) == ("scenes", "latents", "decoder", "diffusion", "export")
    stages.decoder(recipe, run)
    stages.diffusion(recipe, run)
    export(recipe, run, run / "export", world)
    card = json.loads((run / "export" / "card.json").read_text())
    before = json.loads((finished / "card.json").read_text())
    assert card["started_from_sha256"] == before["weights_sha256"] != card["weights_sha256"]
    assert card["steps"] == {"decoder": 12, "diffusion": 12}
    pipe = InstanceDiffusionPipeline.from_pretrained(run / "export", torch_dtype=torch.float32)
    assert pipe.unet.config.in_channels == WIDER
    assert encoder_error(pipe.vae, BlockCode.load(run / stages.CODE)) < 0.01  # it writes the new channels, too
    out = pipe(world.sample(3).to_scene(("box",)), seed=0, num_inference_steps=2, mis_fraction=0.0)
    assert out.images[0].size == (32, 32)


def test_a_decoder_that_was_not_trained_on_goes_along(finished, recipe, drawn, world, tmp_path):
    from safetensors.torch import load_file

    from .conftest import shared

    card = json.loads((finished / "card.json").read_text())
    started = tmp_path / "start"
    shutil.copytree(finished, started)
    card["steps"]["encoder"] = 800  # as the cards of models whose encoder was learned
    (started / "card.json").write_text(json.dumps(card))
    going_on, run = replace(recipe, start=str(started)), shared(drawn, tmp_path)
    stages.diffusion(going_on, run)
    export(going_on, run, run / "export", world)
    assert json.loads((run / "export" / "card.json").read_text())["steps"] == {"decoder": 6, "diffusion": 12}
    old, new = (load_file(f / "vae" / "diffusion_pytorch_model.safetensors") for f in (started, run / "export"))
    assert all(torch.equal(value, new[name]) for name, value in old.items() if name.startswith("decoder."))


def test_another_architecture_is_refused(finished):
    with pytest.raises(SettingsError, match="another architecture"):
        load_start(nn.Linear(2, 2), finished, "unet")


def test_a_folder_without_latents_is_no_start(recipe, drawn, tmp_path):
    from .conftest import shared

    run = shared(drawn, tmp_path)
    (run / stages.CODE).unlink()
    with pytest.raises(SettingsError, match=r"latents.safetensors is missing"):
        stages.latents(replace(recipe, start=str(tmp_path / "nowhere")), run)


@pytest.mark.parametrize("side", [13, 40])
def test_crops_are_whole_blocks_of_the_picture(recipe, run, side):
    cropped = replace(recipe, autoencoder=replace(recipe.autoencoder, crop_px=side))
    with pytest.raises(SettingsError, match="expected a multiple of 4, at most 32"):
        stages.decoder_task(cropped, run)
