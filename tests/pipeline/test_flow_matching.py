"""PRX, a transformer trained by flow matching, in the pipeline, beside diffusers' own: tiny random weights."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from instancediffusion import Box, Instance, InstanceAdapter, InstanceDiffusionPipeline, Scene
from instancediffusion.errors import ModelError, SettingsError
from instancediffusion.sampling import build_scheduler, clean_estimate
from tests.adapter.test_backbones import prx_pipeline  # noqa: F401 - a fixture
from tests.tiny import tiny_adapter
from tests.tiny_pipeline import tiny_vae

CALL = {"seed": 0, "num_inference_steps": 4, "guidance_scale": 3.0, "output_type": "latent", "mis_fraction": 0.0}
CALL |= {"height": 64, "width": 64}
CAT = Instance("a red cat", box=Box(0.1, 0.2, 0.6, 0.9), z_order=1)
MAT = Instance("the mat", box=Box(0.3, 0.4, 0.95, 0.95), z_order=0)


def scene_of(*instances):
    return Scene("a cat on the mat", instances, 64, 64)


@pytest.fixture
def stock(prx_pipeline):  # noqa: F811
    """diffusers' pipeline, whose latents are a quarter of the pictures' sides."""
    prx_pipeline.register_modules(vae=tiny_vae())
    return prx_pipeline


@pytest.fixture
def ours(stock):
    adapter = tiny_adapter(stock.transformer)
    parts = {name: getattr(stock, name) for name in ("vae", "text_encoder", "tokenizer", "scheduler")}
    made = InstanceDiffusionPipeline(unet=stock.transformer, adapter=adapter, **parts)
    made.text_preprocessor = SimpleNamespace(clean_text=str.lower)
    made.set_progress_bar_config(disable=True)
    return made


def test_without_instances_it_is_diffusers_own_pipeline(stock, ours):
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    stock.set_progress_bar_config(disable=True)
    expected = stock(
        "a cat on the mat", latents=noise, num_inference_steps=4, guidance_scale=3.0, height=64, width=64,
        output_type="latent", use_resolution_binning=False,
    ).images  # fmt: skip
    found = ours(scene_of(), latents=noise, grounding_fraction=0.0, **CALL).images
    torch.testing.assert_close(found.float(), expected.float(), atol=2e-5, rtol=0)


def test_instances_act_and_every_way_of_sampling_runs(ours):
    whole = ours(scene_of(CAT), **CALL).images
    assert (whole - ours(scene_of(), **CALL).images).abs().max() > 1e-3
    off = {"grounding_fraction": 0.0, **CALL}
    assert torch.equal(ours(scene_of(CAT), **off).images, ours(scene_of(), **off).images)
    ways = (
        {"mis_fraction": 0.5, "mis_merge": "mean"},
        {"mis_fraction": 0.5, "mis_merge": "layered"},
        {"order_guidance_scale": 1.0, "instance_mask": "visibility"},
    )
    plain = ours(scene_of(CAT, MAT), **CALL).images
    for way in ways:
        found = ours(scene_of(CAT, MAT), **{**CALL, **way}).images
        assert torch.isfinite(found).all() and not torch.equal(found, plain), way


def test_a_picture_goes_on_from_another(ours):
    """At little strength it stays near the picture; at full strength it is that of noise alone."""
    call = {**CALL, "output_type": "pt"}
    source = ours(scene_of(CAT), **{**call, "seed": 7}).images
    near = ours(scene_of(MAT), image=source, strength=0.25, **call).images
    far = ours(scene_of(MAT), image=source, strength=1.0, **call).images
    decoded = ours(scene_of(MAT), image=source, strength=0.01, **call).images
    assert (near - decoded).abs().mean() <= (far - decoded).abs().mean()


def test_the_schedule_is_that_of_flow_matching(ours):
    """x at sigma is sigma noise + (1 - sigma) x0, and the clean estimate undoes it."""
    scheduler = build_scheduler(None, FlowMatchEulerDiscreteScheduler(shift=3.0), flow=True)
    scheduler.set_timesteps(5)
    clean, noise = (torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(k)) for k in (1, 2))
    for timestep, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        noisy = scheduler.add_noise(clean, noise, timestep.reshape(1))
        torch.testing.assert_close(noisy, sigma * noise + (1 - sigma) * clean)
        torch.testing.assert_close(clean_estimate(scheduler, noisy, noise - clean, timestep), clean, atol=1e-5, rtol=0)
    with pytest.raises(SettingsError, match="scheduler: 'ddim' is for models that predict noise or velocity"):
        ours(scene_of(CAT), scheduler="ddim", **CALL)
    ours.scheduler = DDIMScheduler()
    with pytest.raises(SettingsError, match="DDIMScheduler is not for models that were trained by flow matching"):
        ours(scene_of(CAT), **CALL)


def test_it_is_saved_and_opened(ours, tmp_path):
    ours.save_pretrained(tmp_path)
    opened = InstanceDiffusionPipeline.from_pretrained(tmp_path, text_encoder=ours.text_encoder)
    opened.text_preprocessor = ours.text_preprocessor
    opened.set_progress_bar_config(disable=True)
    assert isinstance(opened.adapter, InstanceAdapter) and type(opened.scheduler) is FlowMatchEulerDiscreteScheduler
    found, expected = (pipe(scene_of(CAT), **CALL).images for pipe in (opened, ours))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_without_ftfy_the_reason_is_told(ours):
    def missing(text):
        raise NameError("name 'ftfy' is not defined")

    ours.text_preprocessor = SimpleNamespace(clean_text=missing)
    with pytest.raises(ModelError, match="pip install ftfy"):
        ours(scene_of(CAT), **CALL)
