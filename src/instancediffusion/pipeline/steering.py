"""What a callback may change of a run on its way: latents, prompts, and the guidance scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from instancediffusion.errors import SettingsError
from instancediffusion.pipeline.denoiser import Contexts
from instancediffusion.sampling import is_guided

CALLBACK_TENSORS = ("latents", "prompt_embeds", "negative_prompt_embeds")


class Steering:
    """Prompts and guidance of the images that are sampled together.

    Args:
        contexts: text contexts of the run.
        positive: for each image, the row of its prompt.
        negative: for each image, the row of its negative prompt.
        scale: guidance scale.
        distilled: the UNet takes the guidance scale as an input, so that nothing is left to do for it here.
    """

    def __init__(
        self,
        contexts: Contexts,
        positive: Sequence[int],
        negative: Sequence[int],
        scale: float,
        distilled: bool,
    ) -> None:
        self.contexts = contexts
        self.positive, self.negative = list(positive), list(negative)
        self.scale, self._distilled = scale, distilled

    def guidance_scale(self) -> float:
        """The scale of the next network call."""
        return 1.0 if self._distilled else self.scale

    def prompts(self, image: int) -> tuple[int, int]:
        """The context rows of an image's prompt and negative prompt."""
        return self.positive[image], self.negative[image]

    def tensors(self, names: Sequence[str], latents: Tensor) -> dict[str, Any]:
        """What a callback is handed, as a Stable Diffusion pipeline does it.

        With guidance, `prompt_embeds` are those of the negative prompts (B, L, D) and then those of the prompts.
        """
        values: dict[str, Any] = {}
        for name in names:
            if name == "latents":
                values[name] = latents
            elif name == "negative_prompt_embeds":
                values[name] = self._rows(self.negative)
            else:
                values[name] = self._rows([*self.negative, *self.positive] if self._guided else self.positive)
        return values

    def take(self, handed: Mapping[str, Any], answer: Mapping[str, Any], scale: float) -> Tensor | None:
        """Take over what a callback returned, and the guidance scale it left; returns its latents."""
        images, was_guided = len(self.positive), self._guided
        self.scale = scale
        prompts = answer.get("prompt_embeds")
        if isinstance(prompts, Tensor) and prompts is not handed.get("prompt_embeds"):
            before = handed.get("prompt_embeds", self._rows(self.positive))
            if len(prompts) == 2 * images and was_guided:
                self.negative = self._add(prompts[:images], self.negative)
                self.positive = self._add(prompts[images:], self.positive)
            elif len(prompts) == images:
                self.positive = self._add(prompts, self.positive)
            elif len(prompts) != 1:
                raise SettingsError(f"callback_on_step_end: it returns {len(prompts)} prompt_embeds of {len(before)}")
            elif not torch.equal(prompts, before[-1:]):
                self.positive = self._add(prompts.expand(images, -1, -1), self.positive)
            # One prompt that is the last one only says that guidance has ended, as diffusers' own callbacks do.
        negatives = answer.get("negative_prompt_embeds")
        if isinstance(negatives, Tensor) and negatives is not handed.get("negative_prompt_embeds"):
            self.negative = self._add(negatives.expand(images, -1, -1), self.negative)
        latents: Tensor | None = answer.get("latents")
        return latents

    @property
    def _guided(self) -> bool:
        return is_guided(self.guidance_scale())

    def _rows(self, rows: Sequence[int]) -> Tensor:
        return self.contexts.pick(rows)[0]

    def _add(self, values: Tensor, like: Sequence[int]) -> list[int]:
        return self.contexts.add(values, like)
