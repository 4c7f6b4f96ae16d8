"""LoRA files in both formats, textual inversions, IP-Adapters: loaded by the pipeline itself, beside its adapter."""

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file

from instancediffusion import Box, Instance, Scene
from instancediffusion.conditioning.text import encode_texts
from instancediffusion.errors import ModelError, SettingsError
from tests.tiny_pipeline import scene_of, tiny_pipeline

CALL = {"seed": 0, "num_inference_steps": 2, "guidance_scale": 2.0, "mis_fraction": 0.0, "output_type": "latent"}
RANK = 2


def latents(pipe, scene=None, **options):
    return pipe(scene or scene_of(2), **{**CALL, **options}).images


def lora_of(folder, seed):
    """LoRA weights of a UNet, made with PEFT."""
    torch.manual_seed(seed)
    other = tiny_pipeline(folder / f"source-{seed}")
    other.unet.add_adapter(LoraConfig(r=RANK, target_modules=["to_q", "to_v"], init_lora_weights=False))
    return get_peft_model_state_dict(other.unet)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same LoRA in diffusers' and in kohya's format, and a second one."""
    folder = tmp_path_factory.mktemp("lora")
    layers = lora_of(folder, 1)
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers, weight_name="diffusers.safetensors")
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=lora_of(folder, 2), weight_name="b.safetensors")
    kohya = {}
    for name, value in layers.items():
        module, half, _ = name.rsplit(".", 2)
        key = f"lora_unet_{module.replace('.', '_')}"
        kohya[f"{key}.{'lora_down' if half == 'lora_A' else 'lora_up'}.weight"] = value.contiguous()
        kohya[f"{key}.alpha"] = torch.tensor(float(RANK))
    save_file(kohya, folder / "kohya.safetensors")
    return folder


def test_a_lora_in_either_format(files, tmp_path):
    pipe = tiny_pipeline(tmp_path)
    before, drawn = latents(pipe), {}
    for name in ("diffusers", "kohya"):
        pipe.load_lora_weights(files / f"{name}.safetensors")
        drawn[name] = latents(pipe)
        torch.testing.assert_close(latents(pipe, cross_attention_kwargs={"scale": 0.0}), before, rtol=0, atol=1e-4)
        pipe.unload_lora_weights()
        assert torch.equal(latents(pipe), before)
    torch.testing.assert_close(drawn["kohya"], drawn["diffusers"], rtol=0, atol=1e-4)
    assert (drawn["kohya"] - before).abs().max() > 1e-3


def test_two_weighted_loras_fused_and_taken_apart(files, tmp_path):
    pipe = tiny_pipeline(tmp_path)
    before = latents(pipe)
    pipe.load_lora_weights(files / "diffusers.safetensors", adapter_name="a")
    one = latents(pipe)
    pipe.load_lora_weights(files / "b.safetensors", adapter_name="b")
    pipe.set_adapters(["a", "b"], [1.0, 0.0])
    torch.testing.assert_close(latents(pipe), one, rtol=0, atol=1e-4)
    pipe.set_adapters(["a", "b"], [0.5, 0.8])
    both = latents(pipe)
    pipe.fuse_lora(adapter_names=["a", "b"])
    torch.testing.assert_close(latents(pipe), both, rtol=0, atol=1e-3)
    pipe.unfuse_lora()
    pipe.delete_adapters(["a", "b"])
    torch.testing.assert_close(latents(pipe), before, rtol=0, atol=1e-3)
    pipe.adapter.remove()  # the graft comes off a UNet that held LoRA layers


def test_without_peft_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("instancediffusion.pipeline.pipeline.USE_PEFT_BACKEND", False)
    with pytest.raises(ModelError, match=r"instancediffusion\[adapters\]"):
        tiny_pipeline(tmp_path).load_lora_weights("any")


def test_a_textual_inversion_of_several_vectors(tmp_path):
    """A token of three vectors stands for three tokens, in prompts and captions."""
    pipe = tiny_pipeline(tmp_path)
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    pipe.load_textual_inversion({"<cat-toy>": vectors})
    place = Box(0.1, 0.1, 0.6, 0.6)
    short = Scene("a <cat-toy>", (Instance("a <cat-toy>", box=place),), 64, 64)
    words = "a <cat-toy> <cat-toy>_1 <cat-toy>_2"
    with torch.no_grad():
        spelled = encode_texts([words], pipe.tokenizer, pipe.text_encoder, "cpu").contexts
        assert torch.equal(pipe.encode_prompt("a <cat-toy>", "cpu", 1, False)[0], spelled)
    first = Scene("a <cat-toy>_1", (Instance("a <cat-toy>_1", box=place),), 64, 64)
    assert (latents(pipe, short) - latents(pipe, first)).abs().max() > 1e-3


def ip_adapter_weights(unet, images=4, width=32):
    """Weights of an IP-Adapter of `images` tokens, in the layout of its files."""
    generator = torch.Generator().manual_seed(0)
    layers, key = {}, 1
    for name in unet.attn_processors:
        if name.endswith("attn2.processor"):
            channels = unet.get_submodule(name.rsplit(".", 1)[0]).to_q.in_features
            for half in ("k", "v"):
                weight = torch.randn(channels, width, generator=generator)
                layers[f"{key}.to_{half}_ip.weight"] = weight
            key += 2
    projection = {
        "proj.weight": torch.randn(width * images, width, generator=generator),
        "proj.bias": torch.zeros(width * images),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    return {"image_proj": projection, "ip_adapter": layers}


def test_an_ip_adapter(tmp_path):
    pipe = tiny_pipeline(tmp_path)
    before = latents(pipe)
    weights = ip_adapter_weights(pipe.unet)
    pipe.load_ip_adapter(weights, subfolder="", weight_name="", image_encoder_folder=None)
    features = torch.randn(2, 1, 32, generator=torch.Generator().manual_seed(1))
    with pytest.raises(SettingsError, match="ip_adapter_image: the model has an IP-Adapter"):
        latents(pipe)
    given = {"ip_adapter_image_embeds": [features]}
    pipe.set_ip_adapter_scale(0.0)
    torch.testing.assert_close(latents(pipe, **given), before, rtol=0, atol=1e-4)
    pipe.set_ip_adapter_scale(1.0)
    shown = latents(pipe, **given)
    assert (shown - before).abs().max() > 1e-3
    # Each image of a batch may have a picture of its own; the negative half comes first.
    other = torch.randn(2, 1, 32, generator=torch.Generator().manual_seed(2))
    own = torch.cat([features[:1], other[:1], features[1:], other[1:]])
    batch = latents(pipe, seed=[0, 0], ip_adapter_image_embeds=[own])
    torch.testing.assert_close(batch[:1], shown, rtol=0, atol=1e-3)
    alone = latents(pipe, ip_adapter_image_embeds=[other])
    torch.testing.assert_close(batch[1:], alone, rtol=0, atol=1e-3)
    pipe.unload_ip_adapter()
    torch.testing.assert_close(latents(pipe), before, rtol=0, atol=1e-4)
