"""Latents: what a UNet denoises, and the stage that encodes every scene once, at every size that is learned from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from instancediffusion.data import SceneCache, latents_name, write_latents
from instancediffusion.errors import SettingsError
from instancediffusion.training.autoencoder import pixels
from instancediffusion.training.drawn_scenes import missing_latents

log = logging.getLogger("instancediffusion.training")

ENCODED_TOGETHER = 16
"""Pictures that are encoded at once; the feature maps of an autoencoder are large."""


class Latents:
    """The mode of an autoencoder's posterior, shifted and scaled; p x p of its latent pixels make one of the UNet's.

    Args:
        vae: the autoencoder; it is not trained here.
        patch: p. The UNet sees p^2 times the autoencoder's channels on a grid of 1 / p of its sides.
    """

    def __init__(self, vae: AutoencoderKL, patch: int = 1) -> None:
        self.vae: AutoencoderKL = vae.float().eval().requires_grad_(False)
        self.patch = patch
        self._scale = float(self.vae.config.scaling_factor)
        self._shift = float(self.vae.config.get("shift_factor") or 0.0)

    @property
    def side(self) -> int:
        """Image pixels along one latent pixel of the UNet."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1)) * self.patch

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in -1..1 -> (B, C p^2, H / side, W / side); computed on the autoencoder's device."""
        coded = self.vae.encode(images.to(self.vae.device)).latent_dist.mode()
        return functional.pixel_unshuffle((coded - self._shift) * self._scale, self.patch).to(images.device)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """The inverse of `encode`."""
        coded = functional.pixel_shuffle(latents.to(self.vae.device), self.patch)
        images: Tensor = self.vae.decode(coded / self._scale + self._shift).sample
        return images.to(latents.device)

    def of_pictures(self, images: npt.NDArray[np.uint8], shrink: int = 1, batch: int = ENCODED_TOGETHER) -> Tensor:
        """Encode (B, H, W, 3) pictures, each pixel first made the mean of `shrink` x `shrink`, `batch` at a time."""
        parts = []
        for first in range(0, len(images), batch):
            x = pixels(torch.from_numpy(images[first : first + batch].copy()))
            parts.append(self.encode(functional.avg_pool2d(x, shrink) if shrink > 1 else x))
        return torch.cat(parts)


def encode_scenes(encoder: Latents, folder: Path, full: int, sizes: Sequence[int] = ()) -> None:
    """Encode the pictures of every shard that has no latents yet.

    Args:
        encoder: makes the latents.
        folder: of the shards.
        full: side of the latent grid of whole pictures.
        sizes: sides of further grids; for these the pictures are made smaller, each pixel the mean of those it covers.

    Raises:
        SettingsError: a size does not divide the full one.
    """
    for size in sorted({full, *sizes}, reverse=True):
        if size > full or full % size:
            raise SettingsError(f"stages: sample_size = {size}: expected a divisor of {full}, that of whole pictures")
        name = latents_name(size, full)
        for path in list(missing_latents(folder, name)):
            images = np.load(path / "images.npy", mmap_mode="r", allow_pickle=False)
            write_latents(path, encoder.of_pictures(images, full // size).numpy(), name)
            log.info("encoded %s, %s", path.name, name)


def sample_images(cache: SceneCache, count: int = 1024) -> Tensor:
    """Pictures spread evenly over the cache, (count, 3, H, W) in -1..1."""
    rows = np.linspace(0, len(cache) - 1, min(count, len(cache))).astype(int)
    return pixels(torch.from_numpy(np.stack([cache.image(int(row)) for row in rows])))
