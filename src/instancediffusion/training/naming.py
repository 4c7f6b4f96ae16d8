"""The text stage: before it conditions a denoiser, the text model learns to distinguish texts.

Trained along with the UNet from nothing, the text model collapsed onto one axis (reddish or not): the
gradient that reaches it early speaks of colour only. Here it learns by itself, in minutes, that the one pooled feature
of a text must let a linear reader name every word in it. The denoiser then reads these features as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTokenizer

from instancediffusion.training.config import TextConfig
from instancediffusion.training.task import OnDevice, step_generator
from instancediffusion.training.text_model import TextSide, build_text_model


class NamingTask(OnDevice):
    """The text model's `Task`: name the words of a text from its pooled feature.

    Args:
        config: text model and run.
        texts: prompts and captions to learn from.
        tokenizer: see `train_tokenizer`.
    """

    def __init__(self, config: TextConfig, texts: list[str], tokenizer: CLIPTokenizer) -> None:
        self.config = config
        torch.manual_seed(config.optimiser.seed)
        self.text = TextSide(tokenizer, build_text_model(config, tokenizer))
        self.reader = nn.Linear(config.width, len(tokenizer))
        self.modules: Mapping[str, nn.Module] = {"text_encoder": self.text.model, "reader": self.reader}
        # Captions and prompts alike, each once: what is frequent would otherwise be all that is learned.
        self.texts = sorted(set(texts))

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Binary cross-entropy over the vocabulary, summed over words: present or not."""
        optimiser = self.config.optimiser
        generator = step_generator(optimiser.seed, step)
        rows = torch.randint(len(self.texts), (optimiser.batch_size,), generator=generator).tolist()
        rows = rows[self.where.share(len(rows))]
        texts = [self.texts[row] for row in rows]
        words = self.text.tokenizer(texts, padding="longest", truncation=True, return_tensors="pt").input_ids
        words = words.to(self.where.device)
        with self.where.autocast(optimiser.precision):
            pooled = self.text.model(words).pooler_output
        present = torch.zeros(len(rows), self.reader.out_features, device=words.device).scatter_(1, words, 1.0)
        read = self.reader(pooled.float())
        loss = functional.binary_cross_entropy_with_logits(read, present, reduction="sum") / len(rows)
        found = ((read > 0) == (present > 0)).all(1).float().mean()
        return loss, {"texts_read_without_error": float(found)}

    def preview(self, step: int, path: Path) -> None:
        """There is nothing to see."""

    def state(self) -> dict[str, Any]:
        """The texts are fixed."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The texts are fixed."""
