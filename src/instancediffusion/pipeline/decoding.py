"""Latents to pictures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from instancediffusion.errors import ModelError


def decode_latents(vae: Any, latents: Tensor) -> Tensor:
    """Decode latents one image at a time, which bounds memory and keeps an image independent of its batch.

    Args:
        vae: an `AutoencoderKL`; its config gives the scaling (and shift) of latents.
        latents: (B, C, h, w), as sampled. Where C is p^2 times what the autoencoder reads, a cell holds p x p of its
            codes (see `latent_patch`).

    Returns:
        (B, 3, H, W) float32 on the CPU, nominally -1 to 1.

    Raises:
        ModelError: latents or pictures are not finite, as half precision may make them.
    """
    latents = functional.pixel_shuffle(latents, latent_patch(latents.shape[1], vae))
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    scaled = (latents / vae.config.scaling_factor + shift).to(vae.dtype)
    pictures = torch.cat([vae.decode(row[None], return_dict=False)[0].float().cpu() for row in scaled])
    if not torch.isfinite(pictures).all():
        raise ModelError("the picture holds values that are not finite numbers; use torch_dtype float32 or bfloat16")
    return pictures


def latent_patch(channels: int, vae: Any) -> int:
    """Codes of the autoencoder on each side of a cell of latents with so many channels; 1 in the published model."""
    return math.isqrt(max(channels // vae.config.latent_channels, 1))


def preview_latents(vae: Any, latents: Tensor) -> Tensor:
    """Decode at half the resolution, for about a quarter of the cost; shapes as in `decode_latents`."""
    codes = functional.pixel_shuffle(latents, latent_patch(latents.shape[1], vae))
    return decode_latents(vae, functional.avg_pool2d(codes, 2, ceil_mode=True))


def to_images(pictures: Tensor) -> list[Image.Image]:
    """Turn (B, 3, H, W) pictures, -1 to 1, into PIL images; values are clamped and rounded to 8 bits."""
    scaled = (pictures.clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)
    arrays: np.ndarray[Any, np.dtype[np.uint8]] = scaled.permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(array) for array in arrays]
