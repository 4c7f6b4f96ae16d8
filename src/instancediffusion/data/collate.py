"""Scenes of a cache -> the tensors of one training batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from instancediffusion.conditioning import KINDS, LocationTensors
from instancediffusion.data.shards import SceneCache


@dataclass(frozen=True)
class Batch:
    """B scenes of up to N instances, with all their annotations.

    Attributes:
        locations: the kinds of location, z-order and mask bitmaps of every instance.
        prompts: B texts.
        captions: for each scene, a caption for each of its instances.
    """

    locations: LocationTensors
    prompts: list[str]
    captions: list[list[str]]


def collate(cache: SceneCache, indices: Sequence[int], generator: torch.Generator) -> Batch:
    """Gather scenes by number; where a text has several wordings, one is drawn.

    Args:
        cache: the scenes.
        indices: their numbers.
        generator: draws the wordings.
    """
    prompts, captions = [], []
    for index in indices:
        wordings, groups = cache.texts(index)
        prompts.append(_choose(wordings, generator))
        captions.append([_choose(group, generator) for group in groups])
    return Batch(locations(cache, indices), prompts, captions)


def locations(cache: SceneCache, indices: Sequence[int]) -> LocationTensors:
    """All annotated locations of the instances of some scenes, with as many slots as the fullest of them needs."""
    count = torch.from_numpy(cache.rows("count", indices)).long()
    slots = int(count.max())

    def numbers(name: str) -> Tensor:
        return torch.from_numpy(cache.rows(name, indices)[:, :slots].astype(np.float32))

    bits = np.unpackbits(cache.rows("regions", indices)[:, :slots], axis=-1)
    side = round(bits.shape[-1] ** 0.5)
    used = torch.arange(slots) < count[:, None]
    present = torch.from_numpy(cache.rows("present", indices)[:, :slots]) & used[..., None]
    return LocationTensors(
        boxes=numbers("boxes"),
        points=numbers("points"),
        scribbles=numbers("scribbles"),
        mask_points=numbers("mask_points"),
        used=used,
        present={kind: present[..., k] for k, kind in enumerate(KINDS)},
        z_order=numbers("z_order"),
        z_known=torch.from_numpy(cache.rows("z_known", indices)[:, :slots]) & used,
        segmentations=torch.from_numpy(bits).view(len(indices), slots, side, side),
        segmentation_channel=torch.full(used.shape, -1),
    )


def _choose(wordings: list[str], generator: torch.Generator) -> str:
    return wordings[int(torch.randint(len(wordings), (), generator=generator))]
