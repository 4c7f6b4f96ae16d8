"""The cells stage: before it guides a denoiser, `CellFeatures` learns to say what clean latents show.

Through the denoiser it learns this slowly: most of a step's gradient speaks of noise. By itself it learns in minutes
that a linear reader must find the latents of a cell in its features, wherever an instance is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from instancediffusion.adapter.cells import CellFeatures
from instancediffusion.conditioning.regions import covered_cells
from instancediffusion.data import SceneCache, collate, drop_locations
from instancediffusion.errors import SettingsError
from instancediffusion.training.config import Recipe
from instancediffusion.training.networks import Parts
from instancediffusion.training.supply import SceneTask
from instancediffusion.training.task import Place

SIDES_FROM = 300
"""Scenes whose captions show how a side is told."""


class CellsTask(SceneTask):
    """The cell features' `Task`.

    Args:
        recipe: location dropout and run.
        cache: scenes with latents.
        parts: text side, and the adapter whose cell features are trained.

    Raises:
        SettingsError: the adapter has no cell features.
    """

    def __init__(self, recipe: Recipe, cache: SceneCache, parts: Parts) -> None:
        super().__init__(cache, recipe.cells.seed)
        if not isinstance(parts.adapter.cells, CellFeatures):
            raise SettingsError("adapter.cell_features = 0: the stage cells has nothing to train; give it a width")
        self.recipe, self.config, self.text, self.cells = recipe, recipe.cells, parts.text, parts.adapter.cells
        torch.manual_seed(self.config.seed)
        self.reader = nn.Linear(self.cells.width, int(cache.rows("latents", [0]).shape[1]))
        self.modules: Mapping[str, nn.Module] = {"cells": self.cells, "reader": self.reader}
        rows = range(min(SIDES_FROM, len(cache)))
        told = _sides({caption for row in rows for group in cache.texts(row)[1] for caption in group})
        if told and not recipe.start:
            features = self.text.captions([list(pair) for pair in told], 2).detach().float()
            self.cells.sprites.face(features[:, 0], features[:, 1])

    def place(self, place: Place) -> None:
        """Compute there, and that share of every batch."""
        self.where = place
        for module in (self.text.model, *self.modules.values()):
            module.to(place.device)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Squared error of the latents where instances are, and the unlikelihood of their extents.

        The pictures are painted with the true extents, also of instances told by a point alone: their guesses would
        teach sprites to be blurred.
        """
        rows, generator = self.draw(step, self.config.batch_size)
        batch = collate(self.cache, rows, generator)
        told = drop_locations(batch.locations, self.recipe.locations, generator)
        mine, device = self.where.share(len(rows)), self.where.device
        told = told.select(torch.arange(len(rows))[mine]).to(device)
        latents, boxes = batch.latents[mine].to(device), batch.locations.boxes[mine].to(device)
        size = (latents.shape[2], latents.shape[3])
        with self.where.autocast(self.config.precision):
            captions = self.text.captions(batch.captions[mine], told.slots).float()
            features = self.cells(told, captions, boxes, size)
        read = self.reader(features.float())
        extents = self.cells.extents.loss(told, captions, boxes)
        weight = covered_cells(told, size).flatten(1)[..., None]
        total = weight.sum().clamp(min=1) * latents.shape[1]
        flat = latents.flatten(2).transpose(1, 2)
        error = ((read - flat).square() * weight).sum() / total
        variance = ((flat - flat.mean((0, 1))).square() * weight).sum() / total
        unexplained = float(error.detach() / variance)
        return error + 0.1 * extents, {"unexplained": unexplained, "extents": float(extents.detach())}

    def preview(self, step: int, path: Path) -> None:
        """There is nothing to see yet; the diffusion stage has previews."""


def _sides(captions: set[str]) -> list[tuple[str, str]]:
    """Captions that tell one side, with left and with right."""
    side = re.compile(r"\b(left|right)\b")
    return sorted({(side.sub("left", c), side.sub("right", c)) for c in captions if len(side.findall(c)) == 1})
