"""A finished text-to-image model as the base of an adapter: it is read, used, and left as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from instancediffusion.adapter import InstanceAdapter
from instancediffusion.checkpoints.cards import CARDS, weights_sha256
from instancediffusion.checkpoints.folder import model_folder
from instancediffusion.errors import ModelError
from instancediffusion.training.config import Recipe
from instancediffusion.training.networks import Parts
from instancediffusion.training.objective import Objective
from instancediffusion.training.text import TextSide

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


class BaseLatents:
    """The latents of a finished autoencoder: the middle of its posterior, shifted and scaled as it says.

    Args:
        folder: holds it as `vae/`.
        patch: neighbouring latents on each axis that make up one cell with patch^2 times the channels.
    """

    def __init__(self, folder: Path, patch: int = 1) -> None:
        self._patch = patch
        self.vae: AutoencoderKL = _frozen(AutoencoderKL, folder, "vae")
        self._scale = float(self.vae.config.scaling_factor)
        self._shift = float(self.vae.config.get("shift_factor") or 0.0)

    @property
    def side(self) -> int:
        """Pixels along a cell."""
        return self._patch * int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in -1..1 -> (B, C, h, w)."""
        latents: Tensor = (self.vae.encode(images).latent_dist.mode() - self._shift) * self._scale
        return functional.pixel_unshuffle(latents, self._patch)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """The way back."""
        latents = functional.pixel_shuffle(latents, self._patch)
        images: Tensor = self.vae.decode(latents / self._scale + self._shift).sample
        return images


def load_parts(recipe: Recipe, folder: Path, decode: Callable[[Tensor], Tensor]) -> Parts:
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
    stock = DDPMScheduler.from_pretrained(folder, subfolder="scheduler").config
    schedule = {name: stock[name] for name in _SCHEDULE if name in stock}
    return Parts(
        text=TextSide(tokenizer, text),
        unet=unet,
        adapter=adapter,
        objective=Objective(config, schedule),
        decode=decode,
        trained={"adapter": adapter},
        identity={"base": weights_sha256(folder)},
    )


def _frozen(kind: Any, folder: Path, part: str) -> Any:
    module = kind.from_pretrained(folder / part).to(torch.float32)
    return module.eval().requires_grad_(False)
