"""Scores during training: whoever can judge pictures lends the run an eye."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from instancediffusion.scene import Scene
from instancediffusion.training.preview import Denoising, draw

BATCH = 8


class Scorer(Protocol):
    """Knows what some scenes are to look like and says how far pictures of them do.

    Training knows nothing of judges; the command line hands one in.
    """

    scenes: Sequence[Scene]
    """What is drawn, the same each time; unseen in training if the scores are to mean anything."""

    def __call__(self, images: Sequence[npt.NDArray[np.uint8]]) -> Mapping[str, float]:
        """Score one picture (H, W, 3) for each scene, in their order."""
        ...


def score(task: Denoising, scorer: Scorer) -> Mapping[str, float]:
    """Draw the scorer's scenes with the preview's sampler, each with the same start noise each time."""
    shape = task.latents([0]).shape[1:]
    images: list[npt.NDArray[np.uint8]] = []
    for first in range(0, len(scorer.scenes), BATCH):
        scenes = scorer.scenes[first : first + BATCH]
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(first + k)) for k in range(len(scenes))]
        captions = [[instance.caption for instance in scene.instances] for scene in scenes]
        told = task.parts.adapter.locations(scenes)
        images += list(draw(task, [scene.prompt for scene in scenes], captions, told, torch.stack(noise)))
    return scorer(images)
