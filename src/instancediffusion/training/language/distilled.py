"""The initial weights of a text model that is distilled: the teacher's features of its vocabulary.

Every entry of the vocabulary is read by the teacher as a text of its own, and the principal components of these
features are the embeddings (as in static distillation, Tulkens and van Dongen 2024). The first layer adds to every
token the mean of what stands before it. So the end mark holds, at step 0, the mean of the words.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from instancediffusion.training.language.teacher import Teacher
from instancediffusion.training.tokenizer import MARKS, WORD_END

_MIXED = 0.7
"""Weight of the mean of the tokens in the first layer."""
_QUIET = 0.2
"""By how much the other residual branches are turned down."""
_FAINT = 0.002
"""Standard deviation of what no piece has a meaning for."""


def start_from_teacher(model: CLIPTextModel, head: nn.Linear, pieces: Tensor, marks: Iterable[int]) -> None:
    """Write the initial weights of text model and head.

    Args:
        model: of any width.
        head: from the model's width to the teacher's.
        pieces: (V, D) the teacher's features of the vocabulary's entries, see `read_pieces`.
        marks: entries that mean nothing by themselves.
    """
    mean, axes = _principal(pieces, min(head.in_features, head.out_features))
    weights = model.state_dict()  # shares storage with the model
    prefix = "text_model." if any(name.startswith("text_model.") for name in weights) else ""
    with torch.no_grad():
        table = weights[f"{prefix}embeddings.token_embedding.weight"]
        table.normal_(0.0, _FAINT)
        table[:, : len(axes)] += (pieces - mean) @ axes.T
        table[list(marks)] = torch.randn(len(list(marks)), table.shape[1]) * _FAINT
        for name, weight in weights.items():
            if name.endswith(("out_proj.weight", "fc2.weight")):
                weight.mul_(_QUIET)
        mixing = f"{prefix}encoder.layers.0.self_attn."
        weights[mixing + "v_proj.weight"].copy_(torch.eye(head.in_features))
        weights[mixing + "out_proj.weight"].copy_(_MIXED * torch.eye(head.in_features))
        # The pooled feature has about unit variance after the last norm, a meaning has length one.
        head.weight.zero_()
        head.weight[:, : len(axes)] = axes.T / head.in_features**0.5
        head.bias.copy_(mean)


def read_pieces(tokenizer: CLIPTokenizer, teacher: Teacher) -> Tensor:
    """Return (V, D), the teacher's feature of every entry of a vocabulary, read as a text of its own."""
    entries = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return teacher.encode([_written(tokenizer, entry) for entry, _ in entries])


def _written(tokenizer: CLIPTokenizer, entry: str) -> str:
    if entry in MARKS:
        return ""
    return str(tokenizer.decode(tokenizer.convert_tokens_to_ids([entry]))).strip() or entry.removesuffix(WORD_END)


def _principal(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean (D,) and the first principal axes (count, D) of features (N, D)."""
    mean = features.mean(0)
    _, vectors = torch.linalg.eigh(torch.cov((features - mean).T))
    return mean, vectors.flip(1).T[:count].contiguous()
