"""Stage "words": a small text model takes over a larger one's sense of what words mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTokenizer

from instancediffusion.training.config import TextConfig
from instancediffusion.training.language.distilled import start_from_teacher
from instancediffusion.training.language.lessons import Lessons
from instancediffusion.training.task import OnDevice, step_seed
from instancediffusion.training.text_model import TextSide, build_text_model


class WordsTask(OnDevice):
    """The `Task` of distillation: a linear image of the pooled feature is the teacher's feature.

    Args:
        config: text model and run.
        tokenizer: the text model's.
        lessons: what to learn.
    """

    def __init__(self, config: TextConfig, tokenizer: CLIPTokenizer, lessons: Lessons) -> None:
        self.config, self.lessons = config, lessons
        torch.manual_seed(config.words.seed)
        self.text = TextSide(tokenizer, build_text_model(config, tokenizer))
        self.head = nn.Linear(config.width, lessons.features.shape[1])
        start_from_teacher(self.text.model, self.head, lessons.pieces, tokenizer.all_special_ids)
        self.modules: Mapping[str, nn.Module] = {"text_encoder": self.text.model, "head": self.head}

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Cosine distance to the teacher's feature."""
        run = self.config.words
        rng = np.random.Generator(np.random.PCG64(step_seed(run.seed, step)))
        texts, target = self.lessons.draw(rng, run.batch_size)
        share = self.where.share(run.batch_size)
        with self.where.autocast(run.precision):
            pooled = self.text.pooled(texts[share])
        loss = cosine_distance(self.head(pooled.float()), target[share].to(pooled.device))
        return loss, {}

    def preview(self, step: int, path: Path) -> None:
        """There is nothing to see."""

    def state(self) -> dict[str, Any]:
        """The texts are fixed."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The texts are fixed."""


def cosine_distance(found: Tensor, target: Tensor) -> Tensor:
    """Mean cosine distance of rows, one minus the cosine."""
    return (1.0 - functional.cosine_similarity(found, target, dim=1)).mean()
