"""Latents to pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor
from torch.nn import functional

OUTPUT_TYPES = ("pil", "np", "pt", "latent")
NOT_FINITE = "the picture holds values that are not finite numbers; use torch_dtype float32 or bfloat16"

_PROCESSOR = VaeImageProcessor()


def decode_latents(vae: Any, latents: Tensor, *, upcast: bool = False) -> Tensor:
    """Decode latents one image at a time, which bounds memory and keeps an image independent of its batch.

    Args:
        vae: an `AutoencoderKL` or `AutoencoderTiny`; its config gives the scaling (and shift) of latents.
        latents: (B, C, h, w), as sampled. Where C is p^2 times what the autoencoder reads, a latent pixel holds
            p x p of its codes (see `latent_patch`).
        upcast: compute in float32 where the autoencoder is of float16 and its config says that it overflows.

    Returns:
        (B, 3, H, W) float32 on the CPU, nominally -1 to 1; not finite where half precision overflowed.
    """
    if upcast and vae.dtype == torch.float16 and vae.config.get("force_upcast"):
        vae.to(torch.float32)
        try:
            return decode_latents(vae, latents)
        finally:
            vae.to(torch.float16)
    latents = functional.pixel_shuffle(latents, latent_patch(latents.shape[1], vae))
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    scaled = (latents / vae.config.scaling_factor + shift).to(vae.dtype)
    return torch.cat([vae.decode(row[None], return_dict=False)[0].float().cpu() for row in scaled])


def encode_pictures(vae: Any, pictures: Tensor, channels: int, *, upcast: bool = False) -> Tensor:
    """Encode pictures one at a time, without sampling: the mode of what the encoder predicts.

    Args:
        vae: an `AutoencoderKL` or `AutoencoderTiny`.
        pictures: (B, 3, H, W), -1 to 1.
        channels: of a latent pixel; see `latent_patch`.
        upcast: see `decode_latents`.

    Returns:
        (B, channels, h, w) float32 on the CPU, as `decode_latents` takes them.
    """
    if upcast and vae.dtype == torch.float16 and vae.config.get("force_upcast"):
        vae.to(torch.float32)
        try:
            return encode_pictures(vae, pictures, channels)
        finally:
            vae.to(torch.float16)
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    found = [vae.encode(row[None].to(vae.dtype)) for row in pictures]
    # A TAESD-class encoder (`AutoencoderTiny`) predicts latents, not a distribution of them.
    codes = [(own.latents if hasattr(own, "latents") else own.latent_dist.mode()).float().cpu() for own in found]
    return functional.pixel_unshuffle(
        (torch.cat(codes) - shift) * vae.config.scaling_factor, latent_patch(channels, vae)
    )


def latent_patch(channels: int, vae: Any) -> int:
    """Codes of the autoencoder on each side of a latent pixel with so many channels; 1 in the published model."""
    return math.isqrt(max(channels // vae.config.latent_channels, 1))


def preview_latents(vae: Any, latents: Tensor) -> Tensor:
    """Decode at half the resolution, in about a quarter of the time; shapes as in `decode_latents`.

    What is not finite is black: an image that fails is reported at the end, and takes no others with it.
    """
    codes = functional.pixel_shuffle(latents, latent_patch(latents.shape[1], vae))
    return decode_latents(vae, functional.avg_pool2d(codes, 2, ceil_mode=True)).nan_to_num(-1.0, 1.0, -1.0)


def to_images(pictures: Tensor) -> list[Image.Image]:
    """Turn (B, 3, H, W) pictures, -1 to 1, into PIL images; values are clamped and rounded to 8 bits."""
    images: list[Image.Image] = _PROCESSOR.postprocess(pictures, output_type="pil")
    return images


def as_output(pictures: Sequence[Image.Image | Tensor | None], output_type: str) -> Any:
    """Pictures in the form a caller asked for.

    Args:
        pictures: PIL images, or (3, H, W) tensors from -1 to 1; None for one that failed.
        output_type: `"pil"`, `"np"` or `"pt"`.

    Returns:
        PIL images (None where one failed); or one array (B, H, W, 3) or tensor (B, 3, H, W), 0 to 1, as a list if
        sizes differ, with NaN where one failed.
    """
    if output_type == "pil":
        return [to_images(p[None])[0] if isinstance(p, Tensor) else p for p in pictures]
    found = [None if p is None else _unit(p) for p in pictures]
    size = next((p.shape for p in found if p is not None), torch.Size((3, 8, 8)))
    whole = [torch.full(size, torch.nan) if p is None else p for p in found]
    same = len({p.shape for p in whole}) == 1
    if output_type == "pt":
        return torch.stack(whole) if same else whole
    arrays = [VaeImageProcessor.pt_to_numpy(p[None])[0] for p in whole]
    return VaeImageProcessor.pt_to_numpy(torch.stack(whole)) if same else arrays


def as_picture(image: Any) -> Tensor:
    """(3, H, W), -1 to 1, on the CPU, of a picture in any of the forms of `as_output`."""
    if isinstance(image, Image.Image):
        image = VaeImageProcessor.pil_to_numpy(image)[0]
    if not isinstance(image, Tensor):
        image = VaeImageProcessor.numpy_to_pt(np.asarray(image)[None])[0]
    picture: Tensor = 2 * image.float().cpu() - 1
    return picture


def _unit(picture: Image.Image | Tensor) -> Tensor:
    """(3, H, W), 0 to 1."""
    if isinstance(picture, Tensor):
        unit: Tensor = _PROCESSOR.postprocess(picture[None], output_type="pt")[0]
        return unit
    return VaeImageProcessor.numpy_to_pt(VaeImageProcessor.pil_to_numpy(picture))[0]
