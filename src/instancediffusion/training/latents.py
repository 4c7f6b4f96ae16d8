"""Stage "latents": fix the code of the latents and encode every scene once."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from instancediffusion.data import SceneCache, write_latents
from instancediffusion.training.autoencoder import pixels
from instancediffusion.training.blocks import BlockCode
from instancediffusion.training.scenes import missing_latents

log = logging.getLogger("instancediffusion.training")


@torch.no_grad()
def encode_scenes(code: BlockCode, folder: Path, batch: int = 100) -> None:
    """Encode the pictures of every shard that has no latents yet."""
    for path in list(missing_latents(folder)):
        images = np.load(path / "images.npy", mmap_mode="r", allow_pickle=False)
        parts = [
            code.encode(pixels(torch.from_numpy(images[first : first + batch].copy()))).numpy()
            for first in range(0, len(images), batch)
        ]
        write_latents(path, np.concatenate(parts))
        log.info("encoded %s", path.name)


def sample_images(cache: SceneCache, count: int = 1024) -> Tensor:
    """Pictures spread evenly over the cache, (count, 3, H, W) in -1..1."""
    rows = np.linspace(0, len(cache) - 1, min(count, len(cache))).astype(int)
    return pixels(torch.from_numpy(np.stack([cache.image(int(row)) for row in rows])))
