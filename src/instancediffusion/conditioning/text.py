"""Prompts and captions as numbers: all texts of a run go through the text encoder together, each once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from instancediffusion.errors import ModelError, SceneWarning
from instancediffusion.scene.emphasis import weighted_parts

_TEXTS_PER_CALL = 32


@dataclass(frozen=True)
class TextBank:
    """The encoded texts of a run.

    Attributes:
        contexts: (K, L, D) hidden states after the final norm. A text takes as many windows of the encoder as it needs,
            one after the other; what is left of L is 0.
        lengths: for each text, how many of the L count.
        pooled: (K, D) the hidden state at the first end-of-text token of the first window, before any projection, not
            normalised. It is what the captions of instances were trained with; padding does not change it, since
            attention is causal.
        row: the row of each text.
        projected: (K, P) what goes beside the time step, for models that take it (XL).
    """

    contexts: Tensor
    lengths: tuple[int, ...]
    pooled: Tensor
    row: dict[str, int]
    projected: Tensor | None = None

    def with_contexts(self, more: Sequence[Tensor], projected: Tensor | None = None) -> tuple[TextBank, list[int]]:
        """The same bank with contexts (L, D) that were computed elsewhere, and their rows.

        Args:
            more: the contexts.
            projected: (len(more), P) what goes beside the time step with each; None means zeros.
        """
        first, extended = len(self.lengths), self.projected
        if extended is not None:
            extended = functional.pad(extended, (0, 0, 0, len(more)))
            if projected is not None:
                extended[first:] = projected.to(extended)
        return (
            replace(
                self,
                contexts=_padded([*self.contexts, *(context.to(self.contexts) for context in more)]),
                lengths=(*self.lengths, *(len(context) for context in more)),
                projected=extended,
            ),
            list(range(first, first + len(more))),
        )


@dataclass(frozen=True)
class TextModel:
    """What turns texts into numbers.

    Attributes:
        tokenizer: a CLIP tokenizer.
        encoder: a `CLIPTextModel`.
        device: to compute on.
        expand: replaces words of a text before it is cut into tokens, as textual inversion needs; None = nothing.
    """

    tokenizer: Any
    encoder: Any
    device: torch.device | str
    expand: Callable[[str], str] | None = None

    @property
    def window(self) -> int:
        """Tokens the encoder reads at once, the two at the ends counted."""
        return int(min(self.tokenizer.model_max_length, self.encoder.config.max_position_embeddings))

    def tokens(self, text: str) -> tuple[list[int], list[float]]:
        """The tokens of a text without those at its ends, and the weight of each."""
        ids: list[int] = []
        weights: list[float] = []
        for words, weight in weighted_parts(text):
            found = self.tokenizer(words if self.expand is None else self.expand(words), verbose=False)["input_ids"]
            ids += found[1:-1]
            weights += [weight] * (len(found) - 2)
        return ids, weights

    def windows(self, text: str) -> list[tuple[list[int], list[float]]]:
        """The tokens of a text in windows, padded, with the weight of each; words are not cut if they fit into one."""
        start, end = (self.tokenizer("")["input_ids"][k] for k in (0, -1))
        padding = self.tokenizer.pad_token_id
        padding = end if padding is None else padding
        ids, weights = self.tokens(text)
        room = self.window - 2
        cuts = [0]
        while len(ids) - cuts[-1] > room:
            cuts.append(cuts[-1] + self._fitting(ids[cuts[-1] : cuts[-1] + room + 1]))
        cuts.append(len(ids))
        found = []
        for first, last in pairwise(cuts):
            left = room - (last - first)
            found.append(
                (
                    [start, *ids[first:last], end, *[padding] * left],
                    [1.0, *weights[first:last], 1.0, *[1.0] * left],
                )
            )
        return found

    def _fitting(self, ids: Sequence[int]) -> int:
        """How many of the tokens, of which there is one too many, to take so that no word is cut."""
        pieces = self.tokenizer.convert_ids_to_tokens(list(ids[:-1]))
        ends = [k + 1 for k, piece in enumerate(pieces) if str(piece).endswith("</w>")]
        return ends[-1] if ends and ends[-1] > len(pieces) // 2 else len(pieces)


def encode_texts(
    texts: Sequence[str],
    tokenizer: Any,
    text_encoder: Any,
    device: torch.device | str,
    *,
    captions: Sequence[str] = (),
    expand: Callable[[str], str] | None = None,
    clip_skip: int | None = None,
    before_last: bool = False,
) -> TextBank:
    """Encode texts, each distinct one once.

    A text that is longer than the encoder reads at once is read in several windows. Words in `(words:1.5)` are
    weighted: their hidden states are moved away from those of the empty text, or (below 1) towards them.

    Args:
        texts: prompts, negative prompts and captions; repetitions are free.
        tokenizer: a CLIP tokenizer.
        text_encoder: a `CLIPTextModel`.
        device: to compute on.
        captions: those of the texts whose `pooled` row is used, of which only the first window counts.
        expand: see `TextModel`.
        clip_skip: layers of the encoder to leave out of contexts, from the last on; the final norm stays. None = none.
        before_last: take contexts from before the last layer and without the final norm, as XL does. Its second encoder
            gives projected texts for `pooled`.

    Raises:
        ModelError: the encoder has no more than `clip_skip` layers.

    Warns:
        SceneWarning: a caption has more tokens than the model reads; the message says where it was cut.
    """
    model = TextModel(tokenizer, text_encoder, device, expand)
    distinct = list(dict.fromkeys(texts))
    _warn_of_cuts([text for text in dict.fromkeys(captions) if text in set(distinct)], model)
    windows = [model.windows(text) for text in distinct]
    flat = [ids for text in windows for ids, _ in text]
    weighted = any(weight != 1 for text in windows for _, weights in text for weight in weights)
    if weighted:
        flat.append(model.windows("")[0][0])
    states, pooled = _encode(flat, model, clip_skip, before_last)
    contexts: list[Tensor] = []
    summaries: list[Tensor] = []
    first = 0
    for text in windows:
        own, summary = states[first : first + len(text)], pooled[first]
        weights = torch.tensor([w for _, w in text], device=states.device, dtype=states.dtype)
        if weighted and (weights != 1).any():
            own = states[-1] + weights[..., None] * (own - states[-1])
            # The weight of a caption as a whole: the mean of its words'.
            inner = weights[0, 1 : 1 + len(model.tokens(distinct[len(contexts)])[0])]
            summary = pooled[-1] + inner.mean() * (summary - pooled[-1])
        contexts.append(own.flatten(0, 1))
        summaries.append(summary)
        first += len(text)
    return TextBank(
        _padded(contexts),
        tuple(len(context) for context in contexts),
        torch.stack(summaries),
        {text: row for row, text in enumerate(distinct)},
    )


def _encode(
    windows: Sequence[Sequence[int]], model: TextModel, clip_skip: int | None, before_last: bool
) -> tuple[Tensor, Tensor]:
    """Hidden states (W, L, D) and pooled states (W, D) of windows of tokens."""
    layers = int(model.encoder.config.num_hidden_layers)
    if clip_skip is not None and clip_skip >= layers:
        raise ModelError(f"clip_skip: {clip_skip} leaves none of the text encoder's {layers} layers; use less")
    states, pooled = [], []
    for start in range(0, len(windows), _TEXTS_PER_CALL):
        ids = torch.tensor(windows[start : start + _TEXTS_PER_CALL], device=model.device)
        # No attention mask: the published model was trained to see its padding.
        encoded = model.encoder(ids, output_hidden_states=before_last or bool(clip_skip))
        if before_last:
            states.append(encoded.hidden_states[-(2 + (clip_skip or 0))])
        elif clip_skip:
            inner = getattr(model.encoder, "text_model", model.encoder)
            states.append(inner.final_layer_norm(encoded.hidden_states[-(clip_skip + 1)]))
        else:
            states.append(encoded.last_hidden_state)
        pooled.append(encoded.text_embeds if hasattr(encoded, "text_embeds") else encoded.pooler_output)
    return torch.cat(states), torch.cat(pooled)


def _padded(contexts: Sequence[Tensor]) -> Tensor:
    """Stack contexts (L, D) of different lengths, with 0 behind the shorter ones."""
    longest = max(len(context) for context in contexts)
    return torch.stack([functional.pad(context, (0, 0, 0, longest - len(context))) for context in contexts])


def _warn_of_cuts(captions: Sequence[str], model: TextModel) -> None:
    # A text of n characters has at most n tokens (UTF-8 bytes, to be exact) and the two at its ends.
    for text in captions:
        if model.expand is None and len(text.encode()) + 2 <= model.window:
            continue
        ids, _ = model.tokens(text)
        if len(ids) + 2 > model.window:
            kept = model.tokenizer.decode(ids[: model.window - 2], skip_special_tokens=True)
            warnings.warn(
                f"{text[:40]!r}...: it has {len(ids) + 2} tokens and the model reads {model.window}; "
                f"what follows {kept[-30:]!r} is not used, shorten it",
                SceneWarning,
                stacklevel=4,
            )
