"""A finished text-to-image model as the base of an adapter: it is read, used, and left as it is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from instancediffusion.adapter import InstanceAdapter
from instancediffusion.checkpoints.cards import CARDS, weights_sha256
from instancediffusion.checkpoints.folder import model_folder
from instancediffusion.errors import ModelError
from instancediffusion.training.config import Recipe
from instancediffusion.training.latents import Latents
from instancediffusion.training.networks import Parts
from instancediffusion.training.objective import Objective
from instancediffusion.training.text_model import TextSide

NEEDED = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
_SCHEDULE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")


def base_folder(name: str) -> Path:
    """Find a base.

    Args:
        name: of a card, or a pipeline's folder.

    Raises:
        ModelError: there is none, or it lacks a component.
    """
    folder = model_folder(name) if name in CARDS else Path(name).expanduser()
    missing = [part for part in NEEDED if not (folder / part).is_dir()]
    if missing:
        raise ModelError(
            f"diffusion.base = {name!r}: {folder} has no {', '.join(missing)}; give the folder of a whole pipeline, "
            f"or one of {', '.join(CARDS)}"
        )
    return folder


def base_latents(folder: Path) -> Latents:
    """What a base works on: the latents of its autoencoder, in patches if its UNet has more channels than they."""
    vae: AutoencoderKL = AutoencoderKL.from_pretrained(folder / "vae")
    channels = int(UNet2DConditionModel.load_config(folder / "unet")["in_channels"])
    return Latents(vae, math.isqrt(max(channels // int(vae.config.latent_channels), 1)))


def load_parts(recipe: Recipe, folder: Path, latents: Latents) -> Parts:
    """Load a base and make a new adapter for it.

    All gates of the adapter are zero: the first step is the base's own (paper, section 3.2). Nothing of the base
    requires gradients, so none are computed or averaged for it.
    """
    config = recipe.diffusion
    text = _frozen(CLIPTextModel, folder, "text_encoder")
    unet = _frozen(UNet2DConditionModel, folder, "unet")
    width = int(text.config.hidden_size)
    torch.manual_seed(config.optimiser.seed)
    options = {
        "caption_dim": width,
        "token_dim": int(unet.config.cross_attention_dim),
        "default_instance_mask": config.instance_mask,
        **recipe.adapter,
    }
    adapter = InstanceAdapter.for_unet(unet, **options)
    adapter.graft(unet)
    adapter.train()
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    return Parts(
        text=TextSide(tokenizer, text),
        unet=unet,
        adapter=adapter,
        objective=Objective(config, schedule_of(folder)),
        latents=latents,
        trained={"adapter": adapter},
        identity={"base": weights_sha256(folder)},
    )


def schedule_of(folder: Path) -> dict[str, Any]:
    """The noise schedule that a model was trained with, and what it predicts, as a stock scheduler states them."""
    stock = DDPMScheduler.from_pretrained(folder, subfolder="scheduler").config
    return {name: stock[name] for name in _SCHEDULE if name in stock}


def _frozen(kind: Any, folder: Path, part: str) -> Any:
    module = kind.from_pretrained(folder / part).to(torch.float32)
    return module.eval().requires_grad_(False)
