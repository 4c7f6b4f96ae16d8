"""Second stage: UNet and adapter learn to denoise cached latents, from nothing and together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instancediffusion.adapter import Grounding
from instancediffusion.conditioning import LocationTensors
from instancediffusion.data import SceneCache, collate, drop_locations
from instancediffusion.training.attention import WrittenOutAttention
from instancediffusion.training.config import Recipe
from instancediffusion.training.loop import step_seed
from instancediffusion.training.networks import build_adapter, build_unet
from instancediffusion.training.objective import Objective
from instancediffusion.training.preview import write_preview
from instancediffusion.training.text import TextSide


class DiffusionTask:
    """The denoiser's `Task`.

    Args:
        recipe: model, objective and probabilities.
        cache: scenes with latents.
        text: tokenizer and text model; learns on only if the recipe says so.
        decode: turns latents (B, C, h, w) into pictures (B, 3, H, W) in -1..1, for previews.
    """

    def __init__(self, recipe: Recipe, cache: SceneCache, text: TextSide, decode: Callable[[Tensor], Tensor]) -> None:
        self.recipe, self.config, self.cache, self.decode = recipe, recipe.diffusion, cache, decode
        torch.manual_seed(self.config.optimiser.seed)
        self.unet = build_unet(recipe.unet, recipe.autoencoder.latent_channels, recipe.text.width)
        self.adapter = build_adapter(self.unet, recipe.text, recipe.adapter, self.config)
        self.adapter.graft(self.unet)
        self.unet.to(memory_format=torch.channels_last)
        self.text = text
        self.objective = Objective(self.config)
        self.modules: Mapping[str, nn.Module] = {"text_encoder": text.model, "unet": self.unet, "adapter": self.adapter}
        for module in self.modules.values():
            module.train()
        text.model.requires_grad_(self.config.train_text)
        self._scenes = len(cache)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Denoise a batch, with prompts, instances and kinds of location left out at random."""
        config = self.config
        size = config.optimiser.batch_size
        generator = torch.Generator().manual_seed(step_seed(config.optimiser.seed, step))
        rows = torch.randint(self._scenes, (size,), generator=generator).tolist()
        batch = collate(self.cache, rows, generator)
        told = drop_locations(batch.locations, self.recipe.locations, generator)
        no_prompt, no_instances = self._dropped(size, generator)
        told = _without(told, no_instances)
        prompts = ["" if gone else prompt for prompt, gone in zip(batch.prompts, no_prompt.tolist(), strict=True)]
        noise = torch.randn(batch.latents.shape, generator=generator)
        t = self.objective.timesteps(size, generator)
        x_t, target = self.objective.noised(batch.latents, noise, t)
        with WrittenOutAttention(), torch.autocast("cpu", torch.bfloat16, enabled=config.optimiser.precision == "bf16"):
            context = self.text.context(prompts)
            grounding = self.ground(told, batch.captions)
            x_t = x_t.contiguous(memory_format=torch.channels_last)
            predicted = self.predict(x_t, t, context, grounding)
        return self.objective.loss(predicted, target, t), self._gates()

    def ground(self, locations: LocationTensors, captions: list[list[str]]) -> Grounding:
        """Grounding of a batch; captions of unused slots are ignored."""
        grounding: Grounding = self.adapter(
            locations, self.text.captions(captions, locations.slots), instance_mask=self.config.instance_mask
        )
        return grounding

    def predict(self, x: Tensor, t: Tensor, context: Tensor, grounding: Grounding) -> Tensor:
        """Velocity (B, C, h, w)."""
        kwargs = {"grounding": grounding}
        predicted: Tensor = self.unet(x, t, encoder_hidden_states=context, cross_attention_kwargs=kwargs).sample
        return predicted

    def _dropped(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        luck = torch.rand(3, size, generator=generator)
        both = luck[0] < self.config.drop_both
        return both | (luck[1] < self.config.drop_prompt), both | (luck[2] < self.config.drop_grounding)

    def _gates(self) -> dict[str, float]:
        with torch.no_grad():
            gates = torch.tensor(list(self.adapter.gates().values()))
        return {"gate_attention": float(gates[:, 0].mean()), "gate_dense": float(gates[:, 1].mean())}

    def preview(self, step: int, path: Path) -> None:  # noqa: ARG002
        """Sample the fixed scenes of `write_preview`."""
        write_preview(self, path)

    def state(self) -> dict[str, Any]:
        """Return how many scenes are drawn from; scenes added meanwhile count from here on."""
        self.cache.refresh()
        self._scenes = len(self.cache)
        return {"scenes": self._scenes}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Draw from the scenes the checkpoint knew."""
        self._scenes = int(state["scenes"])


def _without(told: LocationTensors, gone: Tensor) -> LocationTensors:
    """Take all instances from the scenes where `gone` (B,) is true."""
    kept = ~gone[:, None]
    present = {kind: flags & kept for kind, flags in told.present.items()}
    return replace(told, used=told.used & kept, present=present, z_known=told.z_known & kept)
