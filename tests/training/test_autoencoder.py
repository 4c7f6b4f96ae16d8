"""The learned autoencoder: what its latents are like, and that nothing moves them once they are fixed."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn

from instancediffusion.data import SceneCache
from instancediffusion.errors import SettingsError
from instancediffusion.training import stages
from instancediffusion.training.autoencoder import (
    Crops,
    build_autoencoder,
    channel_correlation,
    chroma_distance,
    normalise_latents,
    picture_distance,
)
from instancediffusion.training.checkpoint import load_checkpoint
from instancediffusion.training.config import AutoencoderConfig, OptimiserConfig
from instancediffusion.training.export import finished_autoencoder
from instancediffusion.training.latents import Latents
from instancediffusion.training.optimisers import KernelMuon, orthogonalised

from .test_resume import assert_same


@pytest.fixture(scope="module")
def learned(recipe):
    run = OptimiserConfig(
        steps=6,
        batch_size=4,
        warmup=2,
        checkpoint_every=3,
        log_every=3,
        precision="fp32",
        algorithm="muon-conv",
        preview_every=6,
    )
    config = AutoencoderConfig(
        block_out_channels=(16, 16, 32),
        latent_channels=4,
        patch=2,
        crops=(16, 32),
        discriminator_channels=(8, 8),
        adversary_warmup=1,
        optimiser=run,
        decoder=replace(run, algorithm="adamw"),
    )
    return replace(recipe, autoencoder=config)


@pytest.fixture(scope="module")
def run(drawn, learned, world, tmp_path_factory):
    """A run whose autoencoder is trained and fixed and whose decoder is sharpened; scenes of its own to be encoded."""
    folder = tmp_path_factory.mktemp("learned")
    stages.scenes(learned, folder, world)
    stages.autoencoder(learned, folder)
    stages.latents(learned, folder)
    stages.decoder(learned, folder)
    return folder


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_scenes_are_encoded_to_latents_of_variance_1(run, learned):
    cache = SceneCache(run / "scenes", need_latents=True)
    kept = cache.rows("latents", range(len(cache)))
    assert kept.shape == (20, 4 * 2 * 2, 4, 4)  # four latents to a cell
    kept = torch.pixel_shuffle(torch.from_numpy(kept).float(), 2)
    assert abs(kept.square().mean() - 1) < 0.02
    assert kept.mean((0, 2, 3)).abs().max() < 0.02
    vae = AutoencoderKL.from_pretrained(run / "autoencoder" / "vae")
    x = torch.from_numpy(cache.image(3).copy()).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        latents = vae.encode(x).latent_dist.mode() * vae.config.scaling_factor
    torch.testing.assert_close(kept[3], latents[0], atol=2e-3, rtol=0)
    read = Latents(vae, patch=2).decode(torch.pixel_unshuffle(latents, 2))
    with torch.no_grad():
        torch.testing.assert_close(read, vae.decode(vae.encode(x).latent_dist.mode()).sample, atol=1e-4, rtol=1e-4)


def test_normalising_moves_the_latents_and_no_picture():
    torch.manual_seed(2)
    vae = build_autoencoder(AutoencoderConfig(block_out_channels=(16, 32), latent_channels=3), 16)
    vae.encoder.conv_out.bias.data[:3] = torch.tensor([3.0, -2.0, 0.5])
    x = noise(24, 3, 16, 16)
    with torch.no_grad():
        before = vae.decode(vae.encode(x).latent_dist.mode()).sample
        normalise_latents(vae, x)
        z = vae.encode(x).latent_dist.mode()
        after = vae.decode(z).sample
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    scaled = z * vae.config.scaling_factor
    assert scaled.mean((0, 2, 3)).abs().max() < 1e-4
    assert abs(scaled.square().mean().item() - 1) < 1e-4
    assert (channel_correlation(scaled) - torch.eye(3)).abs().max() < 1e-3
    spread = scaled.std((0, 2, 3))
    assert spread.tolist() == sorted(spread.tolist(), reverse=True)


def test_sharpening_leaves_the_latents_and_changes_the_decoder(run, learned):
    fixed = AutoencoderKL.from_pretrained(run / "autoencoder" / "vae").state_dict()
    vae, steps = finished_autoencoder(learned, run)
    assert steps == {"autoencoder": 6, "decoder": 6}
    changed = {name.split(".")[0] for name, value in vae.state_dict().items() if not torch.equal(value, fixed[name])}
    assert changed == {"decoder", "post_quant_conv"}
    lines = [json.loads(line) for line in (run / "decoder" / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["hinge"]) for line in lines)
    assert all((run / stage / "preview-000006.png").exists() for stage in ("autoencoder", "decoder"))


def test_an_autoencoder_that_latents_were_made_with_is_not_trained_on(run, learned):
    with pytest.raises(SettingsError, match="the autoencoder is fixed"):
        stages.autoencoder(learned, run)


def test_a_run_goes_on_from_a_learned_autoencoder(run, learned, tmp_path):
    for part in ("text_encoder", "tokenizer", "unet", "adapter"):
        (tmp_path / "start" / part).mkdir(parents=True)
    (tmp_path / "start" / "vae").symlink_to(run / "autoencoder" / "vae")
    (tmp_path / "scenes").symlink_to(run / "scenes")
    going_on = replace(learned, start=str(tmp_path / "start"))
    assert stages.names(going_on) == ("scenes", "latents", "diffusion", "decoder", "export")
    (tmp_path / "autoencoder").mkdir()
    stages.decoder(going_on, tmp_path, stop_after=1)
    old, new = (AutoencoderKL.from_pretrained(folder / "autoencoder" / "vae") for folder in (run, tmp_path))
    assert old.config.scaling_factor == new.config.scaling_factor != 1
    assert all(torch.equal(value, new.state_dict()[name]) for name, value in old.state_dict().items())
    with pytest.raises(SettingsError, match=r"has no vae.*; give the folder of an export"):
        stages.latents_of(replace(going_on, start=str(tmp_path / "nowhere")), tmp_path / "other")


@pytest.mark.parametrize("stage", ["autoencoder", "decoder"])
def test_a_stage_that_was_stopped_ends_with_the_same_bits(run, learned, tmp_path, stage):
    (tmp_path / "scenes").symlink_to(run / "scenes")
    if stage == "decoder":
        (tmp_path / "autoencoder").symlink_to(run / "autoencoder")
    for _ in range(2):
        getattr(stages, stage)(learned, tmp_path, stop_after=3)
    assert_same(*(load_checkpoint(folder / stage / "checkpoint.pt") for folder in (tmp_path, run)))


def test_decoder_and_discriminator_learn_each_from_its_own_loss(run, learned):
    def gradients(**weights):
        config = replace(learned.autoencoder, adversary_warmup=0, **weights)
        task = stages.decoder_task(replace(learned, autoencoder=config), run)
        task.loss(3)[0].backward()
        decoder = torch.cat([p.grad.flatten() for p in task.model.decoder.parameters()])
        judge = torch.cat([p.grad.flatten() for p in task.discriminator.parameters()])
        assert all(p.grad is None for p in task.model.encoder.parameters())
        return decoder, judge

    alone, judge = gradients(feature_weight=0.0, adversary_weight=0.0)
    asked, same_judge = gradients(feature_weight=3.0, adversary_weight=2.0)
    torch.testing.assert_close(judge, same_judge)
    assert judge.abs().max() > 0
    assert (asked - alone).norm() > 0.01 * alone.norm()
    # Without weights the discriminator is not heard: what is left is the distance's own gradient.
    task = stages.decoder_task(learned, run)
    rows, generator = task.draw(3, 4)
    x = task.crops.cut(rows, generator, slice(None))
    side = x.shape[-1] // 4
    z = task.model.encode(x).latent_dist.mode()
    drawn = torch.randn((4, 4, side, side), generator=generator)
    level = torch.rand((4, 1, 1, 1), generator=generator)
    z = z + 2 * 0.1 / task.model.config.scaling_factor * level * drawn
    picture_distance(learned.autoencoder, task.model.decode(z).sample, x)[0].backward()
    own = torch.cat([p.grad.flatten() for p in task.model.decoder.parameters()])
    torch.testing.assert_close(alone, own, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_latents_tell_the_colour_of_a_plain_picture_before_anything_is_learned(seed):
    """Group norms take a picture's overall colour away: narrow autoencoders were seen to lose it for good."""
    torch.manual_seed(seed)
    vae = build_autoencoder(AutoencoderConfig(block_out_channels=(16, 32, 32), latent_channels=4), 8)
    colours = noise(120, 3, 1, 1, seed=seed)
    with torch.no_grad():
        latents = vae.encode(colours.expand(-1, -1, 8, 8)).latent_dist.mode().mean((2, 3))
    known = torch.cat([latents, latents**2, torch.ones(120, 1)], 1).double()
    wanted = colours[:, :, 0, 0].double()
    found = known[80:] @ torch.linalg.lstsq(known[:80], wanted[:80]).solution
    error = found - wanted[80:]
    # The worst direction of the three colours: .01 to .06, and .20 to .26 with stock weights, .33 for nothing known.
    assert torch.linalg.eigvalsh(error.T @ error / 40).max() < 0.1


def test_chroma_distance_sees_colours_and_no_greys():
    x = noise(2, 3, 16, 16)
    grey = noise(2, 1, 16, 16, seed=1)
    assert chroma_distance(x + grey, x) < 1e-6
    shifted = x + torch.tensor([0.1, -0.1, 0.0])[:, None, None]
    # R - G is off by .2, yellow - blue by nothing; their mean counts at two scales.
    torch.testing.assert_close(chroma_distance(shifted, x), torch.tensor(0.2))


def test_channel_correlation_is_that_of_numpy():
    z = noise(3, 4, 5, 6) + noise(3, 1, 5, 6, seed=1)
    known = np.corrcoef(z.transpose(0, 1).flatten(1).numpy())
    np.testing.assert_allclose(channel_correlation(z).numpy(), known, atol=1e-5)


def test_crops_are_pieces_of_the_pictures(run):
    cache = SceneCache(run / "scenes")
    crops = Crops(cache, (8, 16), 8)
    seen = set()
    for seed in range(12):
        cut = crops.cut([5, 5], torch.Generator().manual_seed(seed), slice(None))
        whole = torch.from_numpy(cache.image(5).copy()).permute(2, 0, 1) / 127.5 - 1
        side = cut.shape[-1]
        seen.add(side)
        for way in (whole, whole.flip(2)):
            windows = way.unfold(1, side, 1).unfold(2, side, 1)
            if (windows - cut[0][:, None, None]).abs().amax((0, 3, 4)).min() < 1e-6:
                break
        else:
            pytest.fail("not a piece of the picture")
    assert seen == {8, 16}
    for sides in ((12,), (64,)):
        with pytest.raises(SettingsError, match="expected multiples of 8, at most 32"):
            Crops(cache, sides, 8)


def test_muon_on_kernels_is_torchs_on_their_matrices():
    torch.manual_seed(3)
    kernel = nn.Parameter(torch.randn(16, 20, 1, 1))
    matrix = nn.Parameter(kernel.detach().flatten(1).clone())
    own = KernelMuon([kernel], lr=0.02, weight_decay=0.1)
    stock = torch.optim.Muon([matrix], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(4):
        matrix.grad = noise(16, 20, seed=step)
        kernel.grad = matrix.grad.view(16, 20, 1, 1).clone()
        own.step()
        stock.step()
    torch.testing.assert_close(kernel.detach().flatten(1), matrix.detach(), atol=3e-3, rtol=2e-2)
    values = torch.linalg.svdvals(orthogonalised(noise(40, 12)))
    assert 0.6 < values.min() and values.max() < 1.25
