"""The second stage's networks: text model, stock UNet, adapter, with random weights."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNet2DConditionModel

from instancediffusion.adapter import InstanceAdapter
from instancediffusion.training.config import DiffusionConfig, TextConfig, UNetConfig


def build_unet(config: UNetConfig, latent_channels: int, context_width: int) -> UNet2DConditionModel:
    """Make a stock UNet with cross-attention at every level."""
    levels = len(config.block_out_channels)
    return UNet2DConditionModel(
        sample_size=config.sample_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        cross_attention_dim=context_width,
        # The stock name means the number of heads, not their width.
        attention_head_dim=tuple(channels // config.head_channels for channels in config.block_out_channels),
        use_linear_projection=True,
    )


def build_adapter(
    unet: UNet2DConditionModel, text: TextConfig, adapter: dict[str, Any], diffusion: DiffusionConfig
) -> InstanceAdapter:
    """Make an adapter whose gates are open: the base model is trained with it, so there is nothing to protect."""
    made = InstanceAdapter.for_unet(
        unet,
        caption_dim=text.width,
        token_dim=text.width,
        default_instance_mask=diffusion.instance_mask,
        **adapter,
    )
    with torch.no_grad():
        for layer in made.layers.values():
            layer.alpha_attn.fill_(diffusion.attention_gate)
            layer.alpha_dense.fill_(diffusion.dense_gate)
    return made
