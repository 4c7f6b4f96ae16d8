"""Captions that a model can make something of, words that it knows, and what to say of others.

Two captions mean the same to a model as far as their pooled features agree. A caption whose feature is unlike that of
every caption the model is known to draw is answered with something else, and the user should hear of it. Features of
all captions have much in common; likeness is the cosine of what is left without the mean of the known ones.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from instancediffusion.errors import SceneWarning

_TEXTS_PER_CALL = 64
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


@dataclass(frozen=True)
class Familiar:
    """What a model is known to draw.

    Attributes:
        captions: one for each class, as "a dog"; none for models that may know any.
        likeness: cosine, -1..1, of pooled features without their mean, under which a caption is like none of them.
    """

    captions: tuple[str, ...] = ()
    likeness: float = 0.0

    @classmethod
    def read(cls, values: Mapping[str, Any] | None) -> Familiar:
        """Read what a model's index holds: `{"captions": [...], "likeness": 0.5}`, or nothing."""
        values = values or {}
        return cls(tuple(values.get("captions", ())), float(values.get("likeness", 0.0)))

    def strangers(
        self, captions: Sequence[str], tokenizer: Any, text_encoder: Any, device: torch.device | str = "cpu"
    ) -> list[tuple[str, str, float]]:
        """Find the captions that are like none of these.

        Args:
            captions: of instances; empty ones are passed over.
            tokenizer: the model's.
            text_encoder: the model's.
            device: where it computes.

        Returns:
            For each stranger itself, the caption that is nearest to it, and the cosine of the two.
        """
        asked = [caption for caption in dict.fromkeys(captions) if caption.strip()]
        if not self.captions or not asked:
            return []
        features = _features([*self.captions, *asked], tokenizer, text_encoder, device)
        count = len(self.captions)
        centre = features[:count].mean(0) if count > 1 else torch.zeros_like(features[0])
        centred = functional.normalize(features - centre, dim=1)
        best, where = (centred[count:] @ centred[:count].T).max(1)
        return [
            (caption, self.captions[row], value)
            for caption, value, row in zip(asked, best.tolist(), where.tolist(), strict=True)
            if value < self.likeness
        ]

    def warn(
        self,
        captions: Sequence[str],
        tokenizer: Any,
        text_encoder: Any,
        device: torch.device | str = "cpu",
        *,
        stacklevel: int = 2,
    ) -> None:
        """Issue a `SceneWarning` for every caption that is like none of these; see `strangers`."""
        for caption, nearest, likeness in self.strangers(captions, tokenizer, text_encoder, device):
            warnings.warn(
                f"{caption[:60]!r}: the model draws nothing like it and makes up something (nearest is {nearest!r}, "
                f"likeness {likeness:.2f} of at least {self.likeness:.2f}); `instancediffusion doctor --vocabulary` "
                "lists what mini draws",
                SceneWarning,
                stacklevel=stacklevel + 1,
            )


@torch.no_grad()
def _features(texts: Sequence[str], tokenizer: Any, text_encoder: Any, device: torch.device | str) -> Tensor:
    """(N, D) pooled features of length one; attention is causal, so padding changes nothing."""
    length = min(tokenizer.model_max_length, text_encoder.config.max_position_embeddings)
    found = []
    for start in range(0, len(texts), _TEXTS_PER_CALL):
        read = tokenizer(
            list(texts[start : start + _TEXTS_PER_CALL]),
            padding="longest",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        )
        pooled = text_encoder(read["input_ids"].to(device)).pooler_output
        found.append(functional.normalize(pooled.float(), dim=1))
    return torch.cat(found)


def unknown_words(text: str, vocabulary: Collection[str]) -> list[str]:
    """The words of a text that are not in a vocabulary, each once, in lower case."""
    words = dict.fromkeys(_WORD.findall(text.lower()))
    return [word for word in words if word not in vocabulary]


def warn_of_unknown_words(texts: Sequence[str], vocabulary: Collection[str], *, stacklevel: int = 2) -> None:
    """Issue a `SceneWarning` for every text with words that the model never saw.

    Args:
        texts: prompts and captions.
        vocabulary: every word the model was trained on; empty means that it may know any.
        stacklevel: as for `warnings.warn`.
    """
    if not vocabulary:
        return
    for text in dict.fromkeys(texts):
        if unknown := unknown_words(text, vocabulary):
            named = ", ".join(repr(word) for word in unknown)
            warnings.warn(
                f"{text[:60]!r}: the model has never seen {named} and draws something else there; "
                "`instancediffusion doctor --vocabulary` lists what mini knows",
                SceneWarning,
                stacklevel=stacklevel + 1,
            )
