"""Stable Diffusion 2.x (v-prediction) and XL (two text encoders) end to end, against diffusers' own pipelines."""

from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from instancediffusion import InstanceAdapter, InstanceDiffusionPipeline, Scene
from instancediffusion.errors import ModelError, SettingsError
from tests.ldm import single_file
from tests.tiny import tiny_adapter, tiny_unet, tiny_xl_unet
from tests.tiny_pipeline import (
    scene_of,
    tiny_open_clip,
    tiny_pipeline,
    tiny_text_encoder,
    tiny_tokenizer,
    tiny_vae,
)

STEPS = {"num_inference_steps": 3, "guidance_scale": 3.0, "output_type": "latent"}
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def open_clip(kind, words, projection=40):
    tokens = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
    return tiny_open_clip(kind, len(words), projection=projection, layers=3, **tokens)


def neutral(unet, **config):
    """An adapter that changes nothing yet."""
    return InstanceAdapter.for_unet(unet, token_dim=24, hidden_dim=40, **config).eval()


@pytest.fixture(scope="module")
def xl(tmp_path_factory):
    words = tiny_tokenizer(tmp_path_factory.mktemp("words"))
    padded = tiny_tokenizer(tmp_path_factory.mktemp("others"))
    padded.pad_token = "!"
    unet = tiny_xl_unet()
    return {
        "unet": unet,
        "vae": tiny_vae(),
        "text_encoder": tiny_text_encoder(len(words)),
        "text_encoder_2": open_clip(CLIPTextModelWithProjection, padded),
        "tokenizer": words,
        "tokenizer_2": padded,
        "scheduler": EulerDiscreteScheduler(timestep_spacing="leading", **NOISE),
    }


def ours(parts, adapter):
    pipe = InstanceDiffusionPipeline(**parts, adapter=adapter)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("negative", [None, "blur"])
def test_xl_without_instances_is_the_stock_pipeline(xl, negative):
    stock = StableDiffusionXLPipeline(**xl, add_watermarker=False)
    stock.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    size = {"height": 64, "width": 64}
    expected = stock("a red cat", negative_prompt=negative, latents=noise.clone(), **size, **STEPS).images
    adapter = neutral(xl["unet"], caption_dim=32)
    pipe = ours(stock.components, adapter)
    found = pipe(Scene("a red cat", (), 64, 64, negative_prompt=negative), latents=noise, **size, **STEPS).latents
    adapter.remove()
    close(found, expected)


@pytest.mark.parametrize("caption_dim", [32, 40, 72])
def test_xl_with_instances(xl, caption_dim, tmp_path):
    """Captions are told by the first encoder, by the second, or by both, as the adapter's width says."""
    adapter = tiny_adapter(xl["unet"], caption_dim=caption_dim)
    pipe = ours(xl, adapter)
    scene = scene_of(3)
    renamed = replace(scene, instances=(replace(scene.instances[0], caption="a blue bird"), *scene.instances[1:]))
    base = pipe(scene, seed=0, **STEPS).latents
    together = pipe([renamed, scene], seed=0, **STEPS).latents
    close(together[1:], base)
    assert (together[0] - base[0]).abs().max() > 1e-3
    if caption_dim == 32:
        pipe.save_pretrained(tmp_path / "xl")
        loaded = InstanceDiffusionPipeline.from_pretrained(tmp_path / "xl")
        loaded.set_progress_bar_config(disable=True)
        close(loaded(scene, seed=0, **STEPS).latents, base)
    adapter.remove()


NAMES = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")


@pytest.mark.parametrize("negative", [None, "blur"])
def test_encoded_prompts_of_xl(xl, negative):
    """By the names of diffusers, beside a scene and alone; encoders agree with the stock pipeline's."""
    stock = StableDiffusionXLPipeline(**xl, add_watermarker=False)
    adapter = tiny_adapter(xl["unet"], caption_dim=32)
    pipe = ours(xl, adapter)
    with torch.no_grad():
        expected = stock.encode_prompt("a red cat", negative_prompt=negative)
        found = pipe.encode_prompt("a red cat", negative_prompt=negative)
        for one, other in zip(found, expected, strict=True):
            close(one, other)
    scene = replace(scene_of(3), prompt="a red cat", negative_prompt=negative)
    texts = pipe(scene, seed=0, **STEPS).latents
    given = dict(zip(NAMES, found, strict=True))
    other = replace(scene, prompt="something else")
    close(pipe(other, seed=0, **given, **STEPS).latents, texts)
    half = {name: given[name] for name in ("prompt_embeds", "pooled_prompt_embeds")}
    close(pipe(other, seed=0, **half, **STEPS).latents, texts)
    changed = {**given, "pooled_prompt_embeds": -given["pooled_prompt_embeds"]}
    assert (pipe(other, seed=0, **changed, **STEPS).latents - texts).abs().max() > 1e-3
    alone = pipe("a red cat", negative_prompt=negative, seed=0, height=64, width=64, **STEPS).latents
    close(pipe(**given, seed=0, height=64, width=64, **STEPS).latents, alone)
    for wrong, says in (
        ({"prompt_embeds": found[0]}, r"pooled_prompt_embeds: there are none; with prompt_embeds give \(1, 40\)"),
        ({**given, "negative_pooled_prompt_embeds": found[0]}, "negative_pooled_prompt_embeds: their shape is"),
        ({"pooled_prompt_embeds": found[2]}, "pooled_prompt_embeds: they go with prompt_embeds"),
    ):
        with pytest.raises(SettingsError, match=says):
            pipe(other, seed=0, **wrong, **STEPS)
    adapter.remove()


def test_only_xl_takes_pooled_prompts(tmp_path):
    with pytest.raises(SettingsError, match="pooled_prompt_embeds: only XL takes them"):
        tiny_pipeline(tmp_path)("a cat", pooled_prompt_embeds=torch.zeros(1, 40), **STEPS)


def test_xl_in_one_file(xl, tmp_path):
    adapter = tiny_adapter(xl["unet"], caption_dim=32)
    pipe = ours(xl, adapter)
    pipe.save_pretrained(tmp_path / "folder")
    expected = pipe(scene_of(3), seed=0, **STEPS).latents
    adapter.remove()
    tensors = single_file(xl["unet"], xl["vae"], xl["text_encoder"], xl["text_encoder_2"])
    save_file(tensors, tmp_path / "xl.safetensors")
    found = InstanceDiffusionPipeline.from_single_file(
        tmp_path / "xl.safetensors", adapter=tmp_path / "folder", config=tmp_path / "folder"
    )
    found.set_progress_bar_config(disable=True)
    assert (found.tokenizer.pad_token, found.tokenizer_2.pad_token) == (xl["tokenizer"].pad_token, "!")
    close(found(scene_of(3), seed=0, **STEPS).latents, expected)


def test_xl_needs_its_second_encoder(xl):
    parts = {name: part for name, part in xl.items() if not name.endswith("_2")}
    with pytest.raises(ModelError, match="text_encoder_2: the UNet is one of XL"):
        ours(parts, neutral(xl["unet"], caption_dim=32))
    wide = open_clip(CLIPTextModelWithProjection, xl["tokenizer_2"], projection=48)
    with pytest.raises(ModelError, match=r"48 projected channels the UNet would be given 96 .* takes 88"):
        ours({**xl, "text_encoder_2": wide}, neutral(xl["unet"], caption_dim=32))


def test_v_prediction_without_instances_is_the_stock_pipeline(tmp_path):
    words = tiny_tokenizer(tmp_path)
    words.pad_token = "!"
    unet = tiny_unet(use_linear_projection=True, cross_attention_dim=48, attention_head_dim=[2, 4])
    stock = StableDiffusionPipeline(
        unet=unet,
        vae=tiny_vae(),
        text_encoder=open_clip(CLIPTextModel, words),
        tokenizer=words,
        scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False, prediction_type="v_prediction", **NOISE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    stock.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    size = {"height": 64, "width": 64}
    expected = stock("a red cat", negative_prompt="blur", latents=noise.clone(), **size, **STEPS).images
    parts = {name: part for name, part in stock.components.items() if part is not None}
    adapter = neutral(unet, caption_dim=48)
    scene = Scene("a red cat", (), 64, 64, negative_prompt="blur")
    close(ours(parts, adapter)(scene, latents=noise, **size, **STEPS).latents, expected)
    adapter.remove()
    open_gates = tiny_adapter(unet, caption_dim=48)
    found = ours(parts, open_gates)(scene_of(3), latents=noise, **size, **STEPS).latents
    assert torch.isfinite(found).all() and (found - expected).abs().max() > 1e-3
