"""Captions by BLIP and BLIP-2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..protocols import Pixels
from .pinning import Found
from .pixels import Preparation, chunks

CLASSES = {"blip": "BlipForConditionalGeneration", "blip-2": "Blip2ForConditionalGeneration"}

_TOKENS = 60


class Blip:
    """The captioner: what the model says of a picture without being asked anything.

    Args:
        found: a model of a type in `CLASSES`.
        batch_size: pictures that go through it at a time.
    """

    def __init__(self, found: Found, batch_size: int) -> None:
        import transformers

        self.pin: Mapping[str, Any] = found.pin
        self._model = found.load(getattr(transformers, CLASSES[found.kind]))
        self._tokenizer = found.tokenizer()
        self._preparation = Preparation(found.preparation(), found.name, found.device)
        self._batch_size = batch_size

    @torch.inference_mode()
    def captions(self, pictures: Sequence[Pixels], *, whole: bool) -> list[str]:  # noqa: ARG002 - says the same of both
        """See `stages.Captioner`."""
        texts: list[str] = []
        for part in chunks(len(pictures), self._batch_size):
            pixels, _ = self._preparation.padded(pictures[part])
            tokens = self._model.generate(pixel_values=pixels, max_new_tokens=_TOKENS, num_beams=1, do_sample=False)
            texts += self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]
