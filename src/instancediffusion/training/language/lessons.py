"""The teacher's features of a corpus, in a file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from instancediffusion.runs import atomic_path
from instancediffusion.training.language.corpus import Corpus
from instancediffusion.training.language.filler import COUNTS, dressed


@dataclass(frozen=True)
class Lessons:
    """Texts and the teacher's features of them; kept in a file, so that the teacher runs once.

    Attributes:
        corpus: the texts.
        features: (N, D) the teacher's, of `corpus.texts()`.
        pieces: (V, D) the teacher's, of the entries of the text model's vocabulary.
    """

    corpus: Corpus
    features: Tensor
    pieces: Tensor

    def save(self, path: Path) -> None:
        """Write as safetensors, the texts as the bytes of their JSON."""
        texts = json.dumps(asdict(self.corpus))
        with atomic_path(path) as temporary:
            save_file(
                {"features": self.features.half(), "pieces": self.pieces.half(), "texts": _bytes(texts)}, temporary
            )

    @classmethod
    def load(cls, path: Path) -> Lessons:
        """Read what `save` wrote."""
        held = load_file(path)
        texts = json.loads(held["texts"].numpy().tobytes().decode())
        corpus = Corpus(**{name: tuple(values) for name, values in texts.items()})
        return cls(corpus, held["features"].float(), held["pieces"].float())

    def draw(self, rng: np.random.Generator, count: int) -> tuple[list[str], Tensor]:
        """Draw texts as a user might write them, and the teacher's features of them (count, D).

        Of five texts three are about a noun, and the first nouns come most often.
        """
        nouns, pairs, sentences = self.corpus.nouns, self.corpus.pairs, self.corpus.sentences
        texts, rows = [], []
        for choice, u in rng.random((count, 2)):
            if choice < 0.6 or not (pairs and sentences):
                row = int(len(nouns) * u**2.5)
                number = COUNTS[int(rng.integers(len(COUNTS)))] if rng.random() < 0.06 else ""
                texts.append(dressed(rng, nouns[row], number=number))
            elif choice < 0.8:
                row = int(len(pairs) * u)
                texts.append(dressed(rng, pairs[row]))
                row += len(nouns)
            else:
                row = int(len(sentences) * u)
                texts.append(sentences[row])
                row += len(nouns) + len(pairs)
            rows.append(row)
        return texts, self.features[rows]


def _bytes(text: str) -> Tensor:
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
