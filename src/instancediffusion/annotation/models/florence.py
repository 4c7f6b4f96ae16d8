"""Florence-2: tags and captions, by its own task prompts (arXiv 2311.06242)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..protocols import Pixels
from .pinning import Found
from .pixels import Preparation, chunks

OBJECTS = "Locate the objects with category name in the image."
CAPTION = "What does the image describe?"
DETAILED = "Describe in detail what is shown in the image."

_LOCATIONS = re.compile(r"(?:<loc_\d+>)+")
_TOKENS = {OBJECTS: 512, CAPTION: 64, DETAILED: 200}


class Florence:
    """Tagger and captioner.

    Tags are the categories of the objects it finds; its boxes are left to a detector. Photographs are described in
    detail, crops in a sentence.

    Args:
        found: a model of type `florence2`.
        batch_size: pictures that go through it at a time.
    """

    def __init__(self, found: Found, batch_size: int) -> None:
        from transformers import Florence2ForConditionalGeneration

        self.pin: Mapping[str, Any] = found.pin
        self._model = found.load(Florence2ForConditionalGeneration)
        self._tokenizer = found.tokenizer()
        values = found.preparation()
        self._preparation = Preparation(values, found.name, found.device)
        self._batch_size, self._device = batch_size, found.device
        self._image_token = int(found.config.image_token_id)
        across, down = self._preparation.target((1, 1))
        stride = math.prod(found.config.vision_config.patch_stride)
        positions = math.ceil(across / stride) * math.ceil(down / stride)
        self._image_tokens = int(values.get("image_seq_length") or positions + 1)  # and the mean of all positions

    def tags(self, pictures: Sequence[Pixels]) -> list[list[str]]:
        """See `stages.Tagger`."""
        return [[part for part in _LOCATIONS.split(text) if part.strip()] for text in self._answers(pictures, OBJECTS)]

    def captions(self, pictures: Sequence[Pixels], *, whole: bool) -> list[str]:
        """See `stages.Captioner`."""
        texts = self._answers(pictures, DETAILED if whole else CAPTION)
        return [_LOCATIONS.sub(" ", text).strip() for text in texts]

    @torch.inference_mode()
    def _answers(self, pictures: Sequence[Pixels], question: str) -> list[str]:
        tokenizer = self._tokenizer
        words = tokenizer(question, add_special_tokens=False)["input_ids"]
        prompt = [self._image_token] * self._image_tokens + [tokenizer.bos_token_id, *words, tokenizer.eos_token_id]
        texts: list[str] = []
        for part in chunks(len(pictures), self._batch_size):
            pixels, _ = self._preparation.padded(pictures[part])
            ids = torch.tensor([prompt] * len(pixels), device=self._device)
            tokens = self._model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels,
                max_new_tokens=_TOKENS[question], num_beams=1, do_sample=False,
            )  # fmt: skip
            texts += tokenizer.batch_decode(tokens, skip_special_tokens=False)
        return [self._plain(text) for text in texts]

    def _plain(self, text: str) -> str:
        """A text without special tokens, except those of locations, which separate tags."""
        for token in self._tokenizer.all_special_tokens:
            if not _LOCATIONS.fullmatch(token):
                text = text.replace(token, " ")
        return text
