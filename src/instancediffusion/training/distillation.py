"""The distillation stage: what a finished model draws with guidance in many steps, in a few steps of one call each.

Student and teacher start from the same noise. The teacher goes through n k steps of DPM-Solver++ (2M) (Lu et al. 2022)
with classifier-free guidance, two network calls a step. The student, the same network with LoRA layers (Hu et al. 2022)
or all of its weights, goes through n steps of DDIM without guidance, and after each of them is to be where the teacher
is after k times as many. So a step of the student stands for k guided ones (Salimans and Ho 2022, section 3; Meng et
al. 2023, section 3).

- Only the noise levels that the student is sampled at are learned, from the states that sampling passes through, not
  from noised pictures: a guided sampler does not stay where those are. No picture is looked at, only its layout.
- The student goes on from where it came itself, not from where the teacher is, and so learns to make up for its own
  errors. No gradient goes back through earlier steps.
- The error of a step is counted in units of the network's prediction, in which the step is linear.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from instancediffusion.data import SceneCache, collate, drop_locations
from instancediffusion.training.config import Recipe
from instancediffusion.training.diffusion import without_instances
from instancediffusion.training.few_steps import FewSteps
from instancediffusion.training.preview import SceneNetwork, write_preview
from instancediffusion.training.schedule import Schedule
from instancediffusion.training.supply import SceneTask


class DistillationTask(SceneTask):
    """The student's `Task`.

    Args:
        recipe: the section `distillation`, and which locations are given.
        cache: scenes; only their layouts are read.
        few: teacher and student.
    """

    def __init__(self, recipe: Recipe, cache: SceneCache, few: FewSteps) -> None:
        parts, seed = few.student, recipe.distillation.optimiser.seed
        super().__init__(cache, seed, parts.latents.of_pictures, parts.identity)
        self.recipe, self.config, self.few = recipe, recipe.distillation, few
        self.parts, self.modules = parts, few.trained
        self.schedule = Schedule(self.config.optimiser)
        self._taught: dict[int, Tensor] = {}

    def _placed(self) -> Iterable[nn.Module]:
        """What is moved to the device."""
        sides = (self.few.student, self.few.teacher)
        return [part for side in sides for part in (side.text.model, side.unet, side.adapter)]

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Error of the student's steps through a batch of layouts, all steps counted alike."""
        number = self._batch_of(step)
        network, noise = self.batch(number)
        if number not in self._taught:
            self._taught[number] = self.taught(network, noise)
        with self.where.computing(self.config.optimiser.precision):
            passed = list(self.few.walk(network, noise))
        errors = [
            ((moved - goal) / scale).square().mean()
            for moved, goal, scale in zip(passed, self._taught[number], self.few.scales, strict=True)
        ]
        return torch.stack(errors).mean(), {f"error_{k + 1}": float(error.detach()) for k, error in enumerate(errors)}

    def batch(self, number: int) -> tuple[SceneNetwork, Tensor]:
        """The student's network conditioned on this process's part of a batch of scenes, and noise (B, C, h, w).

        All that is random is drawn for the whole batch.
        """
        config = self.config
        rows, generator = self.draw(number, config.optimiser.batch_size)
        batch = collate(self.cache, rows, generator)
        given = drop_locations(batch.locations, self.recipe.locations, generator)
        u = torch.rand(2, len(rows), generator=generator)
        given = without_instances(given, u[0] < config.drop_grounding)
        dropped = (u[1] < config.drop_prompt).tolist()
        prompts = ["" if empty else prompt for prompt, empty in zip(batch.prompts, dropped, strict=True)]
        noise = torch.randn((len(rows), *self.shape(rows[0])), generator=generator)
        mine, device = self.where.share(len(rows)), self.where.device
        given = given.select(torch.arange(len(rows))[mine]).to(device)
        size = (noise.shape[2], noise.shape[3])
        return SceneNetwork(self.parts, prompts[mine], batch.captions[mine], given, size), noise[mine].to(device)

    def taught(self, network: SceneNetwork, noise: Tensor) -> Tensor:
        """Where the teacher is after each of the student's steps, (n, B, C, h, w)."""
        precision = self.config.optimiser.precision
        with torch.no_grad(), self.where.computing(precision), self.few.teaching() as teacher:
            return self.few.guided(replace(network, source=teacher), noise)

    def shape(self, row: int) -> tuple[int, int, int]:
        """(C, h, w) of the latents of a scene's picture."""
        height, width = self.cache.image(row).shape[:2]
        side = self.parts.latents.side
        return int(self.parts.unet.config.in_channels), height // side, width // side

    def _batch_of(self, step: int) -> int:
        """Number of the batch that a step learns from; what the teacher did in those that are over is forgotten."""
        pool = self.config.pool
        first = step // (pool * self.config.uses) * pool
        self._taught = {number: taught for number, taught in self._taught.items() if number >= first}
        return first + step % pool

    def preview(self, step: int, path: Path) -> None:  # noqa: ARG002
        """Sample the fixed scenes of `write_preview` as the student does."""
        write_preview(self, path, self._sampled)

    def _sampled(self, network: SceneNetwork, noise: Tensor) -> Tensor:
        return list(self.few.walk(network, noise))[-1]
