"""Stage "text": the text model learns what the world's texts say of its classes, and keeps its sense of other words.

Linear readers must find, in the one feature of a caption, which class it names, in which colour and orientation, how
many and whether only a part; in a prompt they must find the same where the phrase about an object ends. Two captions
that say the same in other words are to have the same feature. Distillation goes on beside, so that words that the
world's texts never use keep their meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTokenizer

from instancediffusion.training.config import TextConfig
from instancediffusion.training.language.grammar import NUMBERS, SIDES, Grammar, PhraseLabels, Reading
from instancediffusion.training.language.lessons import Lessons
from instancediffusion.training.language.words_task import WordsTask, cosine_distance
from instancediffusion.training.task import OnDevice, step_seed
from instancediffusion.training.text_model import TextSide, build_text_model

_WEIGHTS = {"kind": 1.0, "colour": 1.0, "side": 0.5, "number": 0.25, "part": 0.5, "style": 0.5}
_PAIRED, _DISTILLED, _NAMED = 2.0, 2.0, 0.3


class Readers(nn.Module):
    """Linear readers of one feature.

    Args:
        width: of the feature.
        grammar: what there is to say.
    """

    def __init__(self, width: int, grammar: Grammar) -> None:
        super().__init__()
        sizes = {
            # Past the classes: a text that names none of them.
            "kind": len(grammar.things) + 1,
            "colour": len(grammar.colours) + 1,
            "side": len(SIDES) + 1,
            "number": len(NUMBERS) + 1,
            "part": len(grammar.parts) + 1,
            "style": len(grammar.styles) + 1,
        }
        self.of = nn.ModuleDict({name: nn.Linear(width, size) for name, size in sizes.items()})
        self.named = nn.Linear(width, len(grammar.things))
        self.ground = nn.Linear(width, len(grammar.grounds) + 1)

    def read(self, features: Tensor) -> dict[str, Tensor]:
        """Logits by what is read, of features (N, width)."""
        return {name: reader(features) for name, reader in self.of.items()}


def wanted(labels: Sequence[PhraseLabels]) -> dict[str, Tensor]:
    """What the readers should find, by name, each (N,)."""
    values = {name: torch.tensor([getattr(each, name) for each in labels]) for name in _WEIGHTS}
    return {**values, "kind": values["kind"] - 1}  # every phrase names a class, or none of them


class ReadingTask(OnDevice):
    """The `Task` of the stage.

    Args:
        config: text model and run.
        tokenizer: the text model's.
        lessons: what is distilled beside.
        grammar: the world's texts.
    """

    def __init__(self, config: TextConfig, tokenizer: CLIPTokenizer, lessons: Lessons, grammar: Grammar) -> None:
        self.config, self.grammar, self.lessons = config, grammar, lessons
        torch.manual_seed(config.optimiser.seed)
        self.text = TextSide(tokenizer, build_text_model(config, tokenizer))
        self.readers = Readers(config.width, grammar)
        self.head = nn.Linear(config.width, lessons.features.shape[1])
        self.modules: Mapping[str, nn.Module] = {
            "text_encoder": self.text.model,
            "head": self.head,
            "readers": self.readers,
        }

    def take_over(self, before: WordsTask) -> None:
        """Go on from what the stage before has learned."""
        for name, module in before.modules.items():
            self.modules[name].load_state_dict(module.state_dict())

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropies of the readers, distance of paraphrases, distance to the teacher.

        Several processes need batches of eight texts for each of them.
        """
        run = self.config.optimiser
        rng = np.random.Generator(np.random.PCG64(step_seed(run.seed, step)))
        # Of eight texts four are captions, in pairs; one is a prompt, three are distilled.
        pairs = [self.grammar.caption_pair(rng) for _ in range(max(1, run.batch_size // 4))]
        prompts = [self.grammar.prompt(rng) for _ in range(max(1, run.batch_size // 8))]
        total, numbers = self._captions(pairs[self.where.share(len(pairs))])
        total = total + self._prompts(prompts[self.where.share(len(prompts))])
        count = max(1, 3 * run.batch_size // 8)
        texts, target = self.lessons.draw(rng, count)
        share = self.where.share(count)
        distance = cosine_distance(self.head(self._pooled(texts[share])), target[share].to(self.where.device))
        numbers["distance_to_teacher"] = float(distance.detach())
        return total + _DISTILLED * distance, numbers

    def _captions(self, pairs: Sequence[tuple[Reading, Reading]]) -> tuple[Tensor, dict[str, float]]:
        features = self._pooled([each.text for pair in pairs for each in pair])
        logits = self.readers.read(features)
        target = wanted([each.told[0] for pair in pairs for each in pair])
        target = {name: value.to(features.device) for name, value in target.items()}
        first, second = features[::2], features[1::2]
        right = (logits["kind"].argmax(1) == target["kind"]).float().mean()
        total = self._cross_entropy(logits, target) + _PAIRED * cosine_distance(first, second)
        return total, {"kinds_right": float(right)}

    def _prompts(self, prompts: Sequence[Reading]) -> Tensor:
        read = self.text.tokenizer(
            [prompt.text for prompt in prompts],
            padding="longest",
            max_length=self.text.length,
            truncation=True,
            return_tensors="pt",
            return_offsets_mapping=True,
        )
        with self.where.autocast(self.config.optimiser.precision):
            out = self.text.model(read.input_ids.to(self.where.device))
        rows, columns, labels = [], [], []
        for row, (prompt, offsets) in enumerate(zip(prompts, read.offset_mapping.tolist(), strict=True)):
            ends = [end for _, end in offsets]
            for end, said in zip(prompt.ends, prompt.told, strict=True):
                if end in ends:  # else it was cut
                    rows.append(row)
                    columns.append(ends.index(end))
                    labels.append(said)
        features = out.last_hidden_state.float()[rows, columns]
        total = features.sum() * 0.0
        if labels:
            target = {name: value.to(features.device) for name, value in wanted(labels).items()}
            total = self._cross_entropy(self.readers.read(features), target)
        named = torch.zeros(len(prompts), len(self.grammar.things))
        for row, said in zip(rows, labels, strict=True):
            named[row, said.kind - 1] = 1.0
        whole = out.pooler_output.float()
        ground = torch.tensor([prompt.ground for prompt in prompts], device=whole.device)
        missed = functional.binary_cross_entropy_with_logits(
            self.readers.named(whole), named.to(whole.device), reduction="sum"
        )
        return total + _NAMED * (missed / len(prompts) + functional.cross_entropy(self.readers.ground(whole), ground))

    def _cross_entropy(self, logits: dict[str, Tensor], target: dict[str, Tensor]) -> Tensor:
        each = [weight * functional.cross_entropy(logits[name], target[name]) for name, weight in _WEIGHTS.items()]
        return torch.stack(each).sum()

    def _pooled(self, texts: list[str]) -> Tensor:
        with self.where.autocast(self.config.optimiser.precision):
            return self.text.pooled(texts).float()

    def preview(self, step: int, path: Path) -> None:
        """There is nothing to see."""

    def state(self) -> dict[str, Any]:
        """The texts are fixed."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The texts are fixed."""
