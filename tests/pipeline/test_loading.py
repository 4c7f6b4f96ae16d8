"""Loading from folders: variants, types by component, quantisation, and parts that do not belong together."""

import json
import shutil

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from instancediffusion import InstanceAdapter, InstanceDiffusionPipeline
from instancediffusion.errors import ModelError
from instancediffusion.pipeline.loading import local_model
from tests.tiny import tiny_adapter, tiny_unet
from tests.tiny_pipeline import scene_of, tiny_pipeline, tiny_scheduler, tiny_text_encoder, tiny_tokenizer, tiny_vae

FAST = {"seed": 0, "num_inference_steps": 2, "guidance_scale": 2.0, "output_type": "latent"}


def latents(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe(scene_of(3), **FAST).latents


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    pipe = tiny_pipeline(folder / "tokenizer")
    pipe.save_pretrained(folder / "plain")
    pipe.save_pretrained(folder / "fp16", variant="fp16")
    return folder, latents(pipe)


def test_a_folder_in_one_variant_needs_no_name_for_it(saved, tmp_path):
    folder, expected = saved
    for options in ({}, {"variant": "fp16"}):
        found = InstanceDiffusionPipeline.from_pretrained(folder / "fp16", **options)
        close(latents(found), expected)
    with pytest.raises(ModelError, match=r"variant: .*fp16 has no 'bf16' weights; its variants are: fp16"):
        InstanceDiffusionPipeline.from_pretrained(folder / "fp16", variant="bf16")
    # Plain weights, and the adapter in a variant alone.
    shutil.copytree(folder / "plain", tmp_path / "mixed")
    shutil.rmtree(tmp_path / "mixed" / "adapter")
    shutil.copytree(folder / "fp16" / "adapter", tmp_path / "mixed" / "adapter")
    close(latents(InstanceDiffusionPipeline.from_pretrained(tmp_path / "mixed")), expected)
    weights = tmp_path / "mixed" / "adapter" / "diffusion_pytorch_model.fp16.safetensors"
    shutil.copy(weights, weights.with_name("diffusion_pytorch_model.bf16.safetensors"))
    with pytest.raises(ModelError, match=r"no plain weights for adapter; pass variant= \(bf16, fp16\)"):
        InstanceDiffusionPipeline.from_pretrained(tmp_path / "mixed")
    # An adapter of its own need not have the variant of the model.
    given = InstanceDiffusionPipeline.from_pretrained(folder / "fp16", variant="fp16", adapter=folder / "plain")
    close(latents(given), expected)


def test_a_text_encoder_without_its_weights_is_refused(saved, tmp_path, monkeypatch):
    """transformers fills in random numbers and goes on: `mini` once drew by a text encoder that knew no word."""
    folder, expected = saved
    shutil.copytree(folder / "plain", tmp_path / "copy")
    file = tmp_path / "copy" / "text_encoder" / "model.safetensors"
    tensors = {name.removeprefix("text_model."): value for name, value in load_file(file).items()}
    for prefix in ("", "text_model."):
        save_file({prefix + name: value for name, value in tensors.items()}, file, {"format": "pt"})
        close(latents(InstanceDiffusionPipeline.from_pretrained(tmp_path / "copy")), expected)
    gone = "encoder.layers.0.mlp.fc1.bias"
    save_file({name: value for name, value in tensors.items() if name != gone}, file, {"format": "pt"})
    with pytest.raises(ModelError, match=rf"text_encoder: .*copy lacks {gone}; pass text_encoder=, or download"):
        InstanceDiffusionPipeline.from_pretrained(tmp_path / "copy")
    own = CLIPTextModel.from_pretrained(folder / "plain" / "text_encoder")
    close(latents(InstanceDiffusionPipeline.from_pretrained(tmp_path / "copy", text_encoder=own)), expected)
    # A version that does not find any name leaves all of them random.
    save_file({f"text_model.{name}": value for name, value in tensors.items()}, file, {"format": "pt"})
    monkeypatch.setattr(CLIPTextModel, "from_pretrained", lambda *_args, **_options: CLIPTextModel(own.config))
    with pytest.raises(ModelError, match=r"text_encoder: this version of transformers .* install transformers 5\.6"):
        InstanceDiffusionPipeline.from_pretrained(tmp_path / "copy")


def test_types_by_component_reach_the_adapter(saved):
    folder, expected = saved
    types = {"adapter": torch.bfloat16, "default": torch.float32}
    for options in ({}, {"adapter": folder / "plain" / "adapter"}):
        found = InstanceDiffusionPipeline.from_pretrained(folder / "plain", torch_dtype=types, **options)
        assert (found.adapter.dtype, found.unet.dtype) == (torch.bfloat16, torch.float32)
        assert 0 < (latents(found) - expected).abs().max() < 1
    other = InstanceDiffusionPipeline.from_pretrained(folder / "plain", torch_dtype={"unet": torch.bfloat16})
    assert (other.adapter.dtype, other.unet.dtype) == (torch.float32, torch.bfloat16)
    assert torch.isfinite(latents(other)).all()


def test_device_maps(saved):
    folder, expected = saved
    for place in ("cpu", "balanced"):
        found = InstanceDiffusionPipeline.from_pretrained(folder / "plain", device_map=place)
        close(latents(found), expected)
        apart = InstanceDiffusionPipeline.from_pretrained(folder / "plain", device_map=place, adapter=folder / "plain")
        close(latents(apart), expected)


def test_quantisation_reaches_the_adapter(saved):
    pytest.importorskip("torchao")
    from diffusers import PipelineQuantizationConfig, TorchAoConfig
    from torchao.quantization import Int8WeightOnlyConfig

    folder, expected = saved
    chosen = PipelineQuantizationConfig(quant_mapping={"adapter": TorchAoConfig(Int8WeightOnlyConfig())})
    for options in ({}, {"adapter": folder / "plain" / "adapter"}):
        found = InstanceDiffusionPipeline.from_pretrained(folder / "plain", quantization_config=chosen, **options)
        layer = next(iter(found.adapter.layers.values()))
        assert type(layer.to_q.weight) is not type(found.unet.conv_in.weight)
        assert 0 < (latents(found) - expected).abs().max() < 1


def parts_of(**other):
    unet = other.pop("unet", None) or tiny_unet()
    tokenizer = other.pop("tokenizer")
    parts = {
        "unet": unet,
        "vae": tiny_vae(),
        "text_encoder": tiny_text_encoder(len(tokenizer)),
        "tokenizer": tokenizer,
        "scheduler": tiny_scheduler(),
        **other,
    }
    return {**parts, "adapter": other.get("adapter") or tiny_adapter(unet)}


def test_parts_that_do_not_belong_together(tmp_path):
    words = tiny_tokenizer(tmp_path)
    narrow = AutoencoderKL(**{**tiny_vae().config, "latent_channels": 3})
    small = CLIPTextModel(type(tiny_text_encoder(40).config)(**{**tiny_text_encoder(40).config.to_dict()}))
    cases = [
        ({"unet": tiny_unet(in_channels=8)}, "InstructPix2Pix"),
        ({"unet": tiny_unet(in_channels=7)}, r"takes 7 channels and returns 4.* inpainting UNet 9"),
        ({"unet": tiny_unet(cross_attention_dim=48)}, r"text_encoder: .* 32 channels and the UNet takes 48"),
        ({"unet": tiny_unet(class_embed_type="timestep")}, "classes beside the time step"),
        ({"vae": narrow}, r"vae: its latents have 3 channels and those of the UNet 4"),
        ({"text_encoder": small}, r"tokenizer: it has \d+ tokens and the text encoder 40"),
    ]
    for other, message in cases:
        with pytest.raises(ModelError, match=message):
            InstanceDiffusionPipeline(**parts_of(tokenizer=words, **other))
    with pytest.raises(ModelError, match=r"an AutoencoderKL is no UNet2DConditionModel|a AutoencoderKL is no UNet"):
        InstanceDiffusionPipeline(**{**parts_of(tokenizer=words), "unet": tiny_vae()})


def test_an_adapter_for_captions_of_another_width_is_told_so(tmp_path):
    unet = tiny_unet()
    parts = parts_of(tokenizer=tiny_tokenizer(tmp_path), unet=unet, adapter=tiny_adapter(unet, caption_dim=40))
    pipe = InstanceDiffusionPipeline(**parts)
    with pytest.raises(ModelError, match=r"adapter: it takes captions of 40 values.* 32"):
        latents(pipe)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer"]}, "a transformer in place"),
        ({"_class_name": "StableCascadePriorPipeline", "prior": ["diffusers", "Cascade"]}, "a prior in place"),
        (
            {"_class_name": "KandinskyV22Pipeline", "unet": ["diffusers", "UNet2DConditionModel"]},
            "has no vae",
        ),
        (
            {
                "_class_name": "StableDiffusionXLImg2ImgPipeline",
                "unet": ["diffusers", "UNet2DConditionModel"],
                "vae": ["diffusers", "AutoencoderKL"],
                "text_encoder": [None, None],
                "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            },
            "--refiner",
        ),
        (
            {
                "_class_name": "IFPipeline",
                "unet": ["diffusers", "UNet2DConditionModel"],
                "vae": ["diffusers", "AutoencoderKL"],
                "text_encoder": ["transformers", "T5EncoderModel"],
            },
            "T5EncoderModel",
        ),
    ],
)
def test_other_architectures_are_refused_in_one_sentence(tmp_path, index, message):
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=message) as caught:
        InstanceDiffusionPipeline.from_pretrained(tmp_path, adapter=tmp_path)
    assert "\n" not in str(caught.value)


def test_an_inpainting_unet_is_accepted_and_asks_for_its_image(tmp_path):
    parts = parts_of(tokenizer=tiny_tokenizer(tmp_path / "words"), unet=tiny_unet(in_channels=9))
    InstanceDiffusionPipeline(**parts).save_pretrained(tmp_path / "model")
    pipe = InstanceDiffusionPipeline.from_pretrained(tmp_path / "model")
    assert pipe.latent_px == 4
    with pytest.raises(ModelError, match="image= and mask_image="):
        latents(pipe)


def test_names_are_looked_for_on_the_disk_first(saved, tmp_path, monkeypatch):
    folder, _ = saved
    monkeypatch.chdir(folder)
    assert local_model("plain").resolve() == (folder / "plain").resolve()
    (tmp_path / "adapter").mkdir()
    InstanceAdapter.from_pretrained(folder / "plain" / "adapter").save_pretrained(tmp_path / "adapter")
    with pytest.raises(ModelError, match=r"but an InstanceAdapter; pass it as adapter="):
        local_model(tmp_path / "adapter")
    for name in ("models/finetune.safetensors", "a\\b", "./plain.ckpt", "a//b", "plainn", str(tmp_path / "no")):
        with pytest.raises(ModelError, match="there is no folder or file"):
            local_model(name)
