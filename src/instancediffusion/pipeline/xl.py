"""What Stable Diffusion XL adds (Podell et al. 2023, section 2): two text encoders, and sizes beside the time step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from instancediffusion.errors import SettingsError
from instancediffusion.pipeline.text import TextBank, encode_texts


def is_xl(pipeline: Any) -> bool:
    """Whether a pipeline has the second text encoder of XL."""
    return getattr(pipeline, "text_encoder_2", None) is not None


def check_pooled(pipeline: Any, name: str, pooled: Tensor | None, beside: str, embeds: Tensor | None) -> None:
    """Raise `SettingsError` unless XL is given projected texts with encoded ones, one for each, and others none."""
    if not is_xl(pipeline):
        if pooled is not None:
            raise SettingsError(f"{name}: only XL takes them, and this model is none; leave them out")
        return
    width = int(pipeline.text_encoder_2.config.projection_dim)
    if embeds is None and pooled is not None:
        raise SettingsError(f"{name}: they go with {beside}, which are not given; give both, as encode_prompt does")
    if embeds is not None and (pooled is None or tuple(pooled.shape) != (len(embeds), width)):
        found = "there are none" if pooled is None else f"their shape is {tuple(pooled.shape)}"
        raise SettingsError(f"{name}: {found}; with {beside} give ({len(embeds)}, {width}), as encode_prompt does")


def encode_texts_twice(
    texts: Sequence[str], pipeline: Any, *, captions: Sequence[str] = (), clip_skip: int | None = None
) -> TextBank:
    """Encode texts as XL reads them.

    Contexts are the hidden states of both encoders before their last layers, side by side. `projected` is the projected
    text of the second encoder. `pooled`, which captions are told by, is what the adapter was trained with, known by
    its width: the first encoder's pooled state (as in the published adapter), the second's projected one, or both.

    Args:
        texts: see `encode_texts`.
        pipeline: gives encoders, tokenizers, device and adapter.
        captions: see `encode_texts`.
        clip_skip: see `encode_texts`; one more layer is left out anyway.
    """
    banks = [
        encode_texts(
            texts,
            tokenizer,
            encoder,
            pipeline._execution_device,
            captions=captions,
            expand=partial(pipeline.maybe_convert_prompt, tokenizer=tokenizer),
            clip_skip=clip_skip,
            before_last=True,
        )
        for tokenizer, encoder in (
            (pipeline.tokenizer, pipeline.text_encoder),
            (pipeline.tokenizer_2, pipeline.text_encoder_2),
        )
    ]
    first, second = banks
    if first.lengths != second.lengths:
        raise SettingsError("prompt: the two tokenizers cut it into a different number of windows; shorten it")
    return replace(
        first,
        contexts=torch.cat([first.contexts, second.contexts.to(first.contexts)], dim=-1),
        pooled=_captions(first.pooled, second.pooled.to(first.pooled), int(pipeline.adapter.config.caption_dim)),
        projected=second.pooled,
    )


def _captions(first: Tensor, second: Tensor, width: int) -> Tensor:
    """The features of captions that an adapter of this width takes; the first encoder's where none fits."""
    both = torch.cat([first, second], dim=-1)
    return next((found for found in (first, second, both) if found.shape[-1] == width), first)


def without_text(bank: TextBank, force_zeros: bool) -> tuple[TextBank, int | None]:
    """The bank with a row for no negative prompt at all, and that row; None where the empty text is read as any other.

    XL was trained with zeros in place of the text, not with the empty text (`force_zeros_for_empty_prompt`).
    """
    if not force_zeros or bank.projected is None:
        return bank, None
    longest = max(bank.lengths)
    nothing = bank.contexts.new_zeros(longest, bank.contexts.shape[-1])
    found, rows = bank.with_contexts([nothing])
    return found, rows[0]


def time_ids(size: tuple[int, int]) -> Tensor:
    """(6,) original size, upper left corner of the crop, target size of a picture (height, width) drawn whole."""
    return torch.tensor([*size, 0, 0, *size], dtype=torch.float32)
