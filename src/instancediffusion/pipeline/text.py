"""Prompts and captions as numbers: all texts of a run go through the text encoder together, each once."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from instancediffusion.errors import SceneWarning

_TEXTS_PER_CALL = 32


@dataclass(frozen=True)
class TextBank:
    """The encoded texts of a run.

    Attributes:
        contexts: (K, L, D) hidden states after the final norm, every text padded to the L tokens of the model.
        pooled: (K, D) the hidden state at the first end-of-text token, before any projection, not normalised. It is
            what the captions of instances were trained with; padding does not change it, since attention is causal.
        row: the row of each text.
    """

    contexts: Tensor
    pooled: Tensor
    row: dict[str, int]


def encode_texts(texts: Sequence[str], tokenizer: Any, text_encoder: Any, device: torch.device | str) -> TextBank:
    """Encode texts, each distinct one once.

    Args:
        texts: prompts, negative prompts and captions; repetitions are free.
        tokenizer: a CLIP tokenizer.
        text_encoder: a `CLIPTextModel`.
        device: where to compute.

    Warns:
        SceneWarning: a text has more tokens than the model reads; the message says where it was cut.
    """
    distinct = list(dict.fromkeys(texts))
    length = min(tokenizer.model_max_length, text_encoder.config.max_position_embeddings)
    _warn_of_cuts(distinct, tokenizer, length)
    contexts, pooled = [], []
    for start in range(0, len(distinct), _TEXTS_PER_CALL):
        tokens = tokenizer(
            distinct[start : start + _TEXTS_PER_CALL],
            padding="max_length",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        )
        # No attention mask: the published model was trained to see its padding.
        encoded = text_encoder(tokens["input_ids"].to(device))
        contexts.append(encoded.last_hidden_state)
        pooled.append(encoded.pooler_output)
    return TextBank(torch.cat(contexts), torch.cat(pooled), {text: row for row, text in enumerate(distinct)})


def _warn_of_cuts(texts: Sequence[str], tokenizer: Any, length: int) -> None:
    # A text of n characters has at most n tokens (UTF-8 bytes, to be exact) and the two at its ends.
    long = [text for text in texts if len(text.encode()) + 2 > length]
    if not long:
        return
    for text, ids in zip(long, tokenizer(long, verbose=False)["input_ids"], strict=True):
        if len(ids) > length:
            kept = tokenizer.decode(ids[: length - 1], skip_special_tokens=True)
            warnings.warn(
                f"{text[:40]!r}...: it has {len(ids)} tokens and the model reads {length}; "
                f"what follows {kept[-30:]!r} is not used, shorten it",
                SceneWarning,
                stacklevel=4,
            )
