"""The relative stage: before they guide a denoiser, the box-relative features learn what clean latents look like.

Through the denoiser they learn this slowly: most of a step's gradient speaks of noise. By themselves they learn in
minutes that a linear reader must find the latents of a visual token in them, wherever an instance is. The reader is
thrown away; the layers' maps of `RelativeFeatures` still start at zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from instancediffusion.conditioning.regions import covered_cells
from instancediffusion.data import SceneCache, collate, drop_locations
from instancediffusion.errors import SettingsError
from instancediffusion.training.config import Recipe
from instancediffusion.training.networks import Parts
from instancediffusion.training.supply import SceneTask


class RelativeTask(SceneTask):
    """The `Task` of `RelativeFeatures`.

    Args:
        recipe: location dropout and run.
        cache: scenes with latents.
        parts: text side, and the adapter whose features are trained.

    Raises:
        SettingsError: the adapter has no box-relative features.
    """

    def __init__(self, recipe: Recipe, cache: SceneCache, parts: Parts) -> None:
        encode = None if recipe.diffusion.cache_latents else parts.latents.of_pictures
        super().__init__(cache, recipe.relative.seed, encode)
        self._encoder = () if encode is None else (parts.latents.vae,)
        if parts.adapter.relative is None:
            raise SettingsError("adapter.relative_values = 0: the stage relative has nothing to train; give it a width")
        self.recipe, self.config, self.text = recipe, recipe.relative, parts.text
        self.features, self.rule = parts.adapter.relative, parts.adapter.config.default_instance_mask
        torch.manual_seed(self.config.seed)
        self.reader = nn.Linear(self.features.width, int(self.latents([0]).shape[1]))
        self.modules: Mapping[str, nn.Module] = {"relative": self.features, "reader": self.reader}

    def _placed(self) -> Iterable[nn.Module]:
        """What is moved to the device."""
        return (self.text.model, *self._encoder, *self.modules.values())

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Squared error of the latents where instances are."""
        rows, generator = self.draw(step, self.config.batch_size)
        batch = collate(self.cache, rows, generator)
        given = drop_locations(batch.locations, self.recipe.locations, generator)
        mine, device = self.where.share(len(rows)), self.where.device
        given = given.select(torch.arange(len(rows))[mine]).to(device)
        latents = self.latents(rows[mine]).to(device)
        size = (latents.shape[2], latents.shape[3])
        with torch.no_grad(), self.where.autocast(self.config.precision):
            captions = self.text.captions(batch.captions[mine], given.slots).float()
        with self.where.autocast(self.config.precision):
            features = self.features.seen(given, captions, size, self.rule)
        read = self.reader(features.float())
        weight = covered_cells(given, size).flatten(1)[..., None]
        total = weight.sum().clamp(min=1) * latents.shape[1]
        flat = latents.flatten(2).transpose(1, 2)
        error = ((read - flat).square() * weight).sum() / total
        variance = ((flat - flat.mean((0, 1))).square() * weight).sum() / total
        return error, {"unexplained": float(error.detach() / variance)}

    def preview(self, step: int, path: Path) -> None:
        """There is nothing to see yet; the diffusion stage has previews."""
