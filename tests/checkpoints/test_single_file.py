"""Stable Diffusion 1.x, 2.x and XL models in one file: every tensor lands where it belongs, and the model draws."""

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from instancediffusion.checkpoints import load_official, load_single_file
from instancediffusion.cli.convert import convert
from instancediffusion.errors import CheckpointError, ModelError
from instancediffusion.pipeline import InstanceDiffusionPipeline
from tests.golden.checkpoint import published_checkpoint
from tests.ldm import single_file
from tests.tiny import tiny_unet, tiny_xl_unet
from tests.tiny_pipeline import scene_of, tiny_open_clip, tiny_pipeline, tiny_text_encoder, tiny_tokenizer, tiny_vae

HEADS = {"num_heads": 4, "text_heads": 4}
FAST = {"seed": 0, "num_inference_steps": 2, "guidance_scale": 2.0, "output_type": "latent"}


def same_weights(found, expected):
    ours, theirs = found.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_the_base_in_the_published_checkpoint_is_the_same_by_both_readers(published_file, tmp_path):
    groups = published_checkpoint()
    expected = load_official(published_file, num_heads=4)
    base = {
        f"model.diffusion_model.{name}": value
        for name, value in groups["model"].items()
        if ".fuser." not in name and not name.startswith(("scaleu_", "position_net."))
    }
    base |= {f"first_stage_model.{name}": value for name, value in groups["autoencoder"].items()}
    base |= {f"cond_stage_model.{name}": value for name, value in groups["text_encoder"].items()}
    torch.save({"state_dict": base, "global_step": 1}, tmp_path / "base.ckpt")
    found = load_single_file(tmp_path / "base.ckpt")
    assert found.family == "sd1"
    assert found.text_encoder_2 is None
    expected.adapter.remove()
    for part in ("unet", "vae", "text_encoder"):
        same_weights(getattr(found, part), getattr(expected, part))
    for key in (
        "block_out_channels",
        "layers_per_block",
        "down_block_types",
        "attention_head_dim",
        "cross_attention_dim",
    ):
        ours, theirs = found.unet.config[key], expected.unet.config[key]
        assert (tuple(ours) if isinstance(ours, list) else ours) == theirs
    assert found.vae.config.scaling_factor == expected.vae.config.scaling_factor


def test_stable_diffusion_2_in_one_file(tmp_path):
    unet = tiny_unet(use_linear_projection=True, cross_attention_dim=48, attention_head_dim=[2, 4])
    text_encoder = tiny_open_clip(CLIPTextModel, 192, projection=48)
    save_file(single_file(unet, tiny_vae(), text_encoder, open_clip=True), tmp_path / "sd2.safetensors")
    found = load_single_file(tmp_path / "sd2.safetensors", num_heads=[2, 4], text_heads=4)
    assert found.family == "sd2"
    same_weights(found.unet, unet)
    same_weights(found.vae, tiny_vae())
    same_weights(found.text_encoder, text_encoder)
    ids = torch.arange(24)[None]
    assert torch.equal(found.text_encoder(ids).last_hidden_state, text_encoder(ids).last_hidden_state)
    assert found.scheduler.config.prediction_type == "v_prediction"
    named = load_single_file(tmp_path / "sd2.safetensors", num_heads=[2, 4], prediction_type="epsilon")
    assert named.scheduler.config.prediction_type == "epsilon"


def test_stable_diffusion_xl_in_one_file(tmp_path):
    texts = tiny_text_encoder(192), tiny_open_clip(CLIPTextModelWithProjection, 192)
    unet = tiny_xl_unet()
    tensors = single_file(unet, tiny_vae(), *texts)
    save_file({name: value.half() for name, value in tensors.items()}, tmp_path / "xl.safetensors")
    found = load_single_file(tmp_path / "xl.safetensors", num_heads=[2, 4], text_heads=4)
    assert found.family == "sdxl"
    same_weights(found.unet, unet.half())
    for loaded, expected in zip((found.text_encoder, found.text_encoder_2), texts, strict=True):
        same_weights(loaded, expected.half())
    assert found.unet.config.addition_time_embed_dim == 8
    assert found.unet.config.transformer_layers_per_block[-1] == 2
    assert found.vae.config.scaling_factor == 0.13025
    assert found.scheduler.config.prediction_type == "epsilon"
    save_file(tensors | {"v_pred": torch.zeros(()), "ztsnr": torch.zeros(())}, tmp_path / "v.safetensors")
    marked = load_single_file(tmp_path / "v.safetensors", num_heads=[2, 4], text_heads=4).scheduler.config
    assert (marked.prediction_type, marked.rescale_betas_zero_snr) == ("v_prediction", True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A tiny pipeline, and its base as one file with its adapter and tokenizer beside it."""
    folder = tmp_path_factory.mktemp("whole")
    pipe = tiny_pipeline(folder / "tokenizer")
    save_file(single_file(pipe.unet, pipe.vae, pipe.text_encoder), folder / "finetune.safetensors")
    pipe.adapter.save_pretrained(folder / "adapter")
    pipe.unet.save_config(folder / "config" / "unet")
    pipe.vae.save_config(folder / "config" / "vae")
    pipe.text_encoder.config.save_pretrained(folder / "config" / "text_encoder")
    pipe.scheduler.save_pretrained(folder / "config" / "scheduler")
    tiny_tokenizer(folder / "vocabulary").save_pretrained(folder / "config" / "tokenizer")
    return pipe, folder


def test_a_pipeline_from_one_file(whole):
    pipe, folder = whole
    expected = pipe(scene_of(3), **FAST).latents
    file, options = folder / "finetune.safetensors", {"adapter": folder / "adapter", "scheduler": pipe.scheduler}
    with pytest.raises(ModelError, match=r"finetune.*brings none; pass adapter="):
        InstanceDiffusionPipeline.from_pretrained(file)
    with pytest.raises(ModelError, match="colour: unknown option"):
        InstanceDiffusionPipeline.from_single_file(file, colour=1, **options)
    by_configs = InstanceDiffusionPipeline.from_single_file(file, config=folder / "config", **options)
    # Sizes are read off the tensors; groups of the normalisation are not among them, so those parts are given.
    other = tiny_pipeline(folder / "other")
    other.adapter.remove()
    parts = {"tokenizer": pipe.tokenizer, "vae": pipe.vae, "unet": other.unet}
    by_sizes = InstanceDiffusionPipeline.from_pretrained(file, text_heads=4, **parts, **options)
    for found in (by_sizes, by_configs):
        found.set_progress_bar_config(disable=True)
        torch.testing.assert_close(found(scene_of(3), **FAST).latents, expected, atol=1e-4, rtol=0)
    assert by_configs.vae.config.scaling_factor == pipe.vae.config.scaling_factor
    half = InstanceDiffusionPipeline.from_single_file(
        file, config=folder / "config", torch_dtype={"unet": torch.bfloat16, "default": torch.float32}, **options
    )
    assert (half.unet.dtype, half.vae.dtype) == (torch.bfloat16, torch.float32)


def test_convert_makes_a_folder_of_one_file(whole, tmp_path):
    pipe, folder = whole
    out = tmp_path / "model"
    words = tmp_path / "words"
    pipe.tokenizer.save_pretrained(words)
    given = [str(folder / "finetune.safetensors"), str(out), "--tokenizer", str(words), "--num-heads", "4"]
    result = CliRunner().invoke(convert, [*given, "--adapter", str(folder / "adapter")])
    assert result.exit_code == 0, result.output
    found = InstanceDiffusionPipeline.from_pretrained(out)
    same_weights(found.unet, pipe.unet)
    assert found.adapter.grafted_on(found.unet)
    assert found.text_encoder.config.eos_token_id == pipe.tokenizer.eos_token_id
    stock = CliRunner().invoke(convert, [given[0], str(tmp_path / "stock"), *given[2:]])
    assert stock.exit_code == 0, stock.output
    assert "no adapter" in stock.output
    found = InstanceDiffusionPipeline.from_pretrained(tmp_path / "stock", adapter=folder / "adapter")
    same_weights(found.unet, pipe.unet)


def test_a_file_without_a_part_is_told_so(whole, tmp_path):
    pipe, _ = whole
    tensors = single_file(pipe.unet, pipe.vae, pipe.text_encoder)
    for prefix, words in (
        ("cond_stage_model.", "no text encoder"),
        ("first_stage_model.", "no autoencoder"),
        ("model.diffusion_model.output_blocks.1.", "UNet: .* missing"),
    ):
        save_file({n: v for n, v in tensors.items() if not n.startswith(prefix)}, tmp_path / "part.safetensors")
        with pytest.raises(CheckpointError, match=words):
            load_single_file(tmp_path / "part.safetensors", **HEADS)
