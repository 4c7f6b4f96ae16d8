"""Networks of the published size with random weights, to be timed."""

from __future__ import annotations

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from instancediffusion import InstanceDiffusionPipeline
from instancediffusion.adapter import InstanceAdapter
from instancediffusion.checkpoints import mini_folder

PUBLISHED_SEGMENTATION = {
    "channels": 30,
    "size": 512,
    "tokens": 64,
    "widths": (96, 192, 384, 768),
    "depths": (3, 3, 9, 3),
}


def published_size(dtype: torch.dtype) -> tuple[UNet2DConditionModel, InstanceAdapter]:
    """A UNet and adapter of the published size with cheap random weights, adapter grafted on."""
    with init_empty_weights():
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        adapter = InstanceAdapter.for_unet(unet, segmentation=PUBLISHED_SEGMENTATION)
    for part in (unet, adapter):
        part.to_empty(device="cpu").to(dtype)
        for parameter in part.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
        part.eval()
    adapter.graft(unet)
    return unet, adapter


def random_pipeline(dtype: torch.dtype) -> InstanceDiffusionPipeline:
    """A pipeline of the published size with random weights; its text model has one layer, its autoencoder is small."""
    return pipeline_round(*published_size(dtype))


def pipeline_round(unet: UNet2DConditionModel, adapter: InstanceAdapter) -> InstanceDiffusionPipeline:
    """A pipeline round a grafted UNet of the published size, whose other parts have random weights and are small."""
    adapter.remove()
    dtype = unet.dtype
    tokenizer = CLIPTokenizer.from_pretrained(mini_folder() / "tokenizer", model_max_length=77)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=768,
            num_hidden_layers=1,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    parts = {"vae": vae.to(dtype), "text_encoder": text.to(dtype), "tokenizer": tokenizer}
    return InstanceDiffusionPipeline(**parts, unet=unet, adapter=adapter, scheduler=DDIMScheduler())


def measured_pipeline(model: str, dtype: torch.dtype) -> InstanceDiffusionPipeline:
    """A pipeline to be timed, without a progress bar.

    Args:
        model: as `InstanceDiffusionPipeline.from_pretrained` takes it; "random" is `random_pipeline`.
        dtype: of its weights.
    """
    if model == "random":
        pipeline = random_pipeline(dtype)
    else:
        pipeline = InstanceDiffusionPipeline.from_pretrained(model, torch_dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
