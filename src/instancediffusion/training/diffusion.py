"""The diffusion stage: UNet and adapter, or an adapter on a frozen base, learn to denoise cached latents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from instancediffusion.conditioning import LocationTensors
from instancediffusion.conditioning.regions import covered_cells
from instancediffusion.data import SceneCache, collate, drop_locations, latents_name
from instancediffusion.errors import SettingsError
from instancediffusion.training.attention import WrittenOutAttention
from instancediffusion.training.config import Recipe
from instancediffusion.training.networks import Parts
from instancediffusion.training.preview import Scorer, score, write_preview
from instancediffusion.training.schedule import Schedule
from instancediffusion.training.supply import SceneTask
from instancediffusion.training.task import Place


class DiffusionTask(SceneTask):
    """The denoiser's `Task`.

    Args:
        recipe: objective and probabilities.
        cache: scenes, with the latents of all sizes that the recipe's stages learn at if it has them kept.
        parts: networks and objective.
        scorer: validation callback that scores pictures sampled during training; None scores nothing.

    Raises:
        SettingsError: a stage's size does not divide that of the pictures.
    """

    def __init__(self, recipe: Recipe, cache: SceneCache, parts: Parts, scorer: Scorer | None = None) -> None:
        encode = None if recipe.diffusion.cache_latents else parts.latents.of_pictures
        super().__init__(cache, recipe.diffusion.optimiser.seed, encode, parts.identity)
        self.recipe, self.config, self.parts, self.scorer = recipe, recipe.diffusion, parts, scorer
        self.text, self.unet, self.adapter, self.objective = parts.text, parts.unet, parts.adapter, parts.objective
        self.modules: Mapping[str, nn.Module] = parts.trained
        self.schedule = Schedule(self.config.optimiser, self.config.stages)
        self.unet.to(memory_format=torch.channels_last)
        self._denoise: Callable[..., Any] = self.unet
        if self.config.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing(_recomputed)
        self._full = int(self.latents([0]).shape[-1])
        for stage in self.config.stages:
            if stage.sample_size > self._full or self._full % stage.sample_size:
                raise SettingsError(
                    f"stages: sample_size = {stage.sample_size}: expected a divisor of {self._full}, that of whole "
                    "pictures"
                )

    def place(self, place: Place) -> None:
        """Compute on that device, and that part of every batch."""
        self.schedule.check_shares(place.count, self.config.noise_draws)
        super().place(place)
        if self.config.compile and place.device.type != "cpu":
            self._denoise = torch.compile(self.unet)

    def _placed(self) -> Iterable[nn.Module]:
        """What is moved to the device."""
        encoder = () if self.encode is None else (self.parts.latents.vae,)
        return (self.text.model, self.unet, self.adapter, *encoder)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Denoise a batch, with prompts, instances and kinds of location left out at random.

        All that is random is drawn for the whole batch, whatever part of it this process computes.
        """
        config, draws = self.config, self.config.noise_draws
        size = self.schedule.batch_size(step)
        rows, generator = self.draw(step, size // draws)
        batch = collate(self.cache, rows, generator)
        given = drop_locations(batch.locations, self.recipe.locations, generator)
        no_prompt, no_instances = self._dropped(len(rows), generator)
        given = without_instances(given, no_instances)
        hard = bool(torch.rand((), generator=generator) < config.hard_mask) if config.hard_mask else False
        prompts = ["" if dropped else prompt for prompt, dropped in zip(batch.prompts, no_prompt.tolist(), strict=True)]
        # This process's part; scene k of a batch has the noises k * draws and following.
        mine, own, device = self.where.share(len(rows)), self.where.share(size), self.where.device
        stage = self.schedule.stage(step)
        side = self._full if stage is None else stage.sample_size
        latents = self.latents(rows[mine], latents_name(side, self._full), self._full // side)
        noise = torch.randn((size, *latents.shape[1:]), generator=generator)
        t = self.objective.timesteps(size, generator)
        x_t, target = self.objective.noised(latents.repeat_interleave(draws, 0), noise[own], t[own])
        x_t = x_t.to(device).contiguous(memory_format=torch.channels_last)
        with self.where.computing(config.optimiser.precision):
            context = self.text.context(prompts[mine])
            given = given.select(torch.arange(len(rows))[mine]).to(device)
            rule = "grounding" if hard else config.instance_mask
            grounding = self.parts.ground(given, batch.captions[mine], rule)
            if draws > 1:
                each = torch.arange(len(x_t), device=device) // draws
                context, grounding = context[each], grounding.select(each)
            predicted = self.parts.predict(x_t, t[own].to(device), context, grounding, self._denoise)
        weights = None
        if config.object_weight:
            covered = covered_cells(batch.locations, (x_t.shape[2], x_t.shape[3]))
            weights = self.objective.weights(covered)[mine].repeat_interleave(draws, 0).to(device)
        return self.objective.loss(predicted, target.to(device), t[own], weights), self._gates()

    def preview(self, step: int, path: Path) -> None:  # noqa: ARG002
        """Sample the fixed scenes of `write_preview`."""
        write_preview(self, path)

    def scores(self) -> Mapping[str, float]:
        """The scorer's numbers for pictures sampled now."""
        return {} if self.scorer is None else score(self, self.scorer)

    def _dropped(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        u = torch.rand(3, size, generator=generator)
        both = u[0] < self.config.drop_both
        return both | (u[1] < self.config.drop_prompt), both | (u[2] < self.config.drop_grounding)

    def _gates(self) -> dict[str, float]:
        with torch.no_grad():
            gates = torch.tensor(list(self.adapter.gates().values()))
        # Absolute values: a gate that starts at zero may open with either sign.
        sizes = gates.abs().mean(0)
        return {"gate_attention": float(sizes[0]), "gate_dense": float(sizes[1])}


def _recomputed(module: nn.Module, *args: Any) -> Any:
    """Run a block whose activations are computed again in the backward pass, with the attention it ran with."""
    on_cpu = args[0].device.type == "cpu"
    contexts: dict[str, Any] = {"context_fn": lambda: (nullcontext(), WrittenOutAttention())} if on_cpu else {}
    return checkpoint(module, *args, use_reentrant=False, **contexts)


def without_instances(given: LocationTensors, dropped: Tensor) -> LocationTensors:
    """Take all instances from the scenes where `dropped` (B,) is true."""
    kept = ~dropped[:, None]
    present = {kind: flags & kept for kind, flags in given.present.items()}
    return replace(given, used=given.used & kept, present=present, z_known=given.z_known & kept)
