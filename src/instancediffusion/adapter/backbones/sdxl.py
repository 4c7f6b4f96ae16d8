"""Stable Diffusion XL (Podell et al. 2023, section 2): two text encoders, and sizes beside the time step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from instancediffusion.conditioning.text import TextBank, encode_texts
from instancediffusion.errors import SettingsError

from .unet import UNetBackbone, text_width_problems

TIME_IDS = 6  # original size, crop, target size


class StableDiffusionXL(UNetBackbone):
    """Contexts of two encoders side by side, the projected text of the second beside the time step."""

    name: ClassVar = "sdxl"
    title: ClassVar = "Stable Diffusion XL"
    text_encoders: ClassVar = ("CLIPTextModel", "CLIPTextModelWithProjection")
    upcasts_vae: ClassVar = True

    def fits(self, network: Any) -> bool:
        """A UNet that takes texts and sizes beside the time step."""
        return super().fits(network) and network.config.get("addition_embed_type") == "text_time"

    def pooled_dim(self, network: Any) -> int:
        """What is left of the input beside the time step when the sizes are taken off."""
        config = network.config
        return int(config.projection_class_embeddings_input_dim - TIME_IDS * config.addition_time_embed_dim)

    def text_problems(self, network: Any, encoders: Sequence[Any]) -> Iterator[str]:
        """Whether both texts, and the projected one, are as wide as the UNet takes them."""
        first, second = encoders
        if first is not None and second is None:
            yield "text_encoder_2: the UNet is one of XL and needs a second text encoder; pass text_encoder_2="
        else:
            yield from text_width_problems(network, encoders)
        if second is not None:
            inputs = network.config.projection_class_embeddings_input_dim
            expected = second.config.projection_dim + TIME_IDS * network.config.addition_time_embed_dim
            if inputs != expected:
                yield (
                    f"text_encoder_2: with its {second.config.projection_dim} projected channels the UNet would be "
                    f"given {expected} values beside the time step, and takes {inputs}; take the model's own"
                )

    def encode(
        self,
        pipeline: Any,
        texts: Sequence[str],
        *,
        captions: Sequence[str] = (),
        clip_skip: int | None = None,
        device: torch.device | str | None = None,
    ) -> TextBank:
        """By both encoders.

        Contexts are the hidden states of both before their last layers, side by side. `projected` is the projected text
        of the second. `pooled`, which captions are given by, is what the adapter was trained with, as its width shows:
        the first encoder's pooled state (as in the published adapter), the second's projected one, or both.
        """
        first, second = (
            encode_texts(
                texts,
                tokenizer,
                encoder,
                device or pipeline._execution_device,
                captions=captions,
                expand=partial(pipeline.maybe_convert_prompt, tokenizer=tokenizer),
                clip_skip=clip_skip,
                before_last=True,
            )
            for tokenizer, encoder in (
                (pipeline.tokenizer, pipeline.text_encoder),
                (pipeline.tokenizer_2, pipeline.text_encoder_2),
            )
        )
        if first.lengths != second.lengths:
            raise SettingsError("prompt: the two tokenizers cut it into a different number of windows; shorten it")
        return replace(
            first,
            contexts=torch.cat([first.contexts, second.contexts.to(first.contexts)], dim=-1),
            pooled=_captions(first.pooled, second.pooled.to(first.pooled), int(pipeline.adapter.config.caption_dim)),
            projected=second.pooled,
        )

    def text_inputs(
        self, context: Tensor, counts: Tensor | None, pooled: Tensor | None, size: tuple[int, int] | None
    ) -> dict[str, Any]:
        """With the projected text, and the sizes of a picture that is drawn whole."""
        found = super().text_inputs(context, counts, pooled, size)
        if pooled is not None and size is not None:
            ids = torch.tensor([*size, 0, 0, *size], dtype=torch.float32).to(context).expand(len(context), -1)
            found["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": ids}
        return found


def _captions(first: Tensor, second: Tensor, width: int) -> Tensor:
    """The features of captions that an adapter of this width takes; the first encoder's where none fits."""
    both = torch.cat([first, second], dim=-1)
    return next((found for found in (first, second, both) if found.shape[-1] == width), first)
