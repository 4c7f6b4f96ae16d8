"""The diffusion stage's networks: text model, stock UNet, adapter; here with random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from instancediffusion.adapter import Grounding, InstanceAdapter
from instancediffusion.adapter.backbones import backbone_of
from instancediffusion.conditioning import LocationTensors
from instancediffusion.training.config import DiffusionConfig, Recipe, TextConfig, UNetConfig
from instancediffusion.training.latents import Latents
from instancediffusion.training.objective import Objective
from instancediffusion.training.text_model import TextSide


@dataclass(frozen=True)
class Parts:
    """What the diffusion stage works with.

    Attributes:
        text: tokenizer and text model.
        unet: with the adapter grafted on.
        adapter: the adapter.
        objective: what is learned.
        latents: turns latents (B, C, h, w) into pictures (B, 3, H, W) in -1..1, for previews, and back.
        trained: the modules that a checkpoint holds, by name; of these, what requires gradients learns.
        identity: what else the weights depend on, kept in checkpoints: a run is not continued without it.
    """

    text: TextSide
    unet: UNet2DConditionModel
    adapter: InstanceAdapter
    objective: Objective
    latents: Latents
    trained: Mapping[str, nn.Module]
    identity: Mapping[str, str] = field(default_factory=dict)

    def ground(
        self, locations: LocationTensors, captions: list[list[str]], instance_mask: str | None = None
    ) -> Grounding:
        """Grounding of a batch; captions of unused slots are ignored. Without a mask rule, it has the adapter's."""
        features = self.text.captions(captions, locations.slots)
        grounding: Grounding = self.adapter(locations, features, instance_mask=instance_mask)
        return grounding

    def predict(
        self, x: Tensor, t: Tensor, context: Tensor, grounding: Grounding, unet: Callable[..., Any] | None = None
    ) -> Tensor:
        """The network's prediction, of what the objective asks for, (B, C, h, w); `unet` may be its compiled self."""
        if not grounding.maps:  # once for all layers, and outside of what gradient checkpointing computes again
            height, width = x.shape[-2:]
            grounding = grounding.on_maps(backbone_of(self.unet).map_sizes(self.unet, height, width))
        kwargs = {"grounding": grounding}
        call = self.unet if unet is None else unet
        predicted: Tensor = call(x, t, encoder_hidden_states=context, cross_attention_kwargs=kwargs).sample
        return predicted


def build_parts(recipe: Recipe, text: TextSide, latents: Latents) -> Parts:
    """Make UNet and adapter with random weights, to go with a text model; it learns on only if the recipe says so."""
    config = recipe.diffusion
    torch.manual_seed(config.optimiser.seed)
    unet = build_unet(recipe.unet, recipe.autoencoder.latent_channels * recipe.autoencoder.patch**2, recipe.text.width)
    adapter = build_adapter(unet, recipe.text, recipe.adapter, config)
    adapter.graft(unet)
    trained: dict[str, nn.Module] = {"text_encoder": text.model, "unet": unet, "adapter": adapter}
    for module in trained.values():
        module.train()
    text.model.requires_grad_(config.train_text)
    return Parts(text, unet, adapter, Objective(config), latents, trained)


def build_unet(config: UNetConfig, latent_channels: int, context_width: int) -> UNet2DConditionModel:
    """Make a stock UNet with cross-attention where the recipe asks for it."""
    levels = len(config.block_out_channels)
    return UNet2DConditionModel(
        sample_size=config.sample_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=config.down_block_types or ("CrossAttnDownBlock2D",) * levels,
        up_block_types=config.up_block_types or ("CrossAttnUpBlock2D",) * levels,
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        transformer_layers_per_block=config.transformer_layers or 1,
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
