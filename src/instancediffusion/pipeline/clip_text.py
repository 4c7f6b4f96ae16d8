"""CLIP's text encoder and tokenizer as transformers computes them, without transformers.

Importing transformers takes a fifth of the time from the start of a process to its first picture of the model in the
package, whose text encoder has four layers. A process that makes such pictures and ends does without it
(`cli.libraries.unloaded`), and with what is here. Sources: Radford et al. 2021, section 2.4, and the configuration and
tensor names of `CLIPTextModel`; the numbers are the same, see `tests/pipeline/test_clip_text.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import tokenizers
import torch
from torch import Tensor, nn
from torch.nn import functional

from instancediffusion.checkpoints.contents import SafeTensors
from instancediffusion.errors import ModelError


def clip_text_parts(folder: Path, dtype: torch.dtype) -> dict[str, Any]:
    """The text encoder and tokenizer of a model's folder, by the names of their components.

    Args:
        folder: of a model whose text encoder is a `CLIPTextModel`, in safetensors.
        dtype: of the encoder's weights.

    Raises:
        ModelError: a tensor is missing, or there is one too many.
    """
    encoder = ClipText.from_folder(folder / "text_encoder").to(dtype)
    return {"text_encoder": encoder, "tokenizer": ClipTokens(folder / "tokenizer")}


@dataclass(frozen=True)
class TextStates:
    """What a text encoder makes of B texts of L tokens.

    Attributes:
        last_hidden_state: (B, L, D) after the final norm.
        pooler_output: (B, D) of these, the one at the first end-of-text token.
        hidden_states: (B, L, D) before each layer and after the last, without the final norm.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor
    hidden_states: tuple[Tensor, ...]


class ClipText(nn.Module):
    """The text encoder, for inference.

    Args:
        config: that of a `CLIPTextModel`.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = SimpleNamespace(**config)
        width = self.config.hidden_size
        self.embeddings = nn.ModuleDict(
            {
                "token_embedding": nn.Embedding(self.config.vocab_size, width),
                "position_embedding": nn.Embedding(self.config.max_position_embeddings, width),
            }
        )
        layers = [_Layer(self.config) for _ in range(self.config.num_hidden_layers)]
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(layers)})
        self.final_layer_norm = nn.LayerNorm(width, eps=self.config.layer_norm_eps)

    @classmethod
    def from_folder(cls, folder: Path) -> ClipText:
        """Read `config.json` and `model.safetensors`; weights keep the type they have there.

        Raises:
            ModelError: a tensor is missing, or there is one too many.
        """
        with torch.device("meta"):
            model = cls(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        file = SafeTensors(folder / "model.safetensors")
        tensors = {name.removeprefix("text_model."): file[name] for name in file}
        tensors.pop("embeddings.position_ids", None)  # older versions of transformers wrote it; it counts up
        try:
            model.load_state_dict(tensors, assign=True)
        except RuntimeError as error:
            raise ModelError(f"text_encoder: {folder} does not hold its weights; install the package again") from error
        return model.eval().requires_grad_(False)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.final_layer_norm.weight.dtype

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return self.final_layer_norm.weight.device

    def forward(self, input_ids: Tensor, output_hidden_states: bool = False) -> TextStates:  # noqa: ARG002 - for free
        """Encode tokens (B, L); each attends to those before it."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        states = [self.embeddings["token_embedding"](input_ids) + self.embeddings["position_embedding"](positions)]
        for layer in self.encoder["layers"].children():
            states.append(layer(states[-1]))
        last = self.final_layer_norm(states[-1])
        ends = (input_ids == self.config.eos_token_id).int().argmax(-1)
        return TextStates(last, last[torch.arange(len(last), device=last.device), ends], tuple(states))


class _Layer(nn.Module):
    """Causal self-attention and a feed-forward layer, each after a norm and beside a shortcut."""

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        if config.hidden_act != "quick_gelu":
            raise ModelError(f"text_encoder: its activation is {config.hidden_act}, and only quick_gelu is known here")
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.layer_norm1, self.layer_norm2 = (nn.LayerNorm(width, eps=config.layer_norm_eps) for _ in range(2))
        names = ("q_proj", "k_proj", "v_proj", "out_proj")
        self.self_attn = nn.ModuleDict({name: nn.Linear(width, width) for name in names})
        inner = config.intermediate_size
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, inner), "fc2": nn.Linear(inner, width)})

    def forward(self, states: Tensor) -> Tensor:
        """From and to (B, L, D)."""
        normed = self.layer_norm1(states)
        query, key, value = (
            self.self_attn[name](normed).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        states = states + self.self_attn["out_proj"](mixed.transpose(1, 2).flatten(2))
        inner = self.mlp["fc1"](self.layer_norm2(states))
        return states + self.mlp["fc2"](inner * torch.sigmoid(1.702 * inner))


class ClipTokens:
    """The tokenizer, by the names that a `CLIPTokenizer` has for what a pipeline asks of it.

    Args:
        folder: with `tokenizer.json` and `tokenizer_config.json`.

    Attributes:
        model_max_length: tokens that the encoder reads at once, the two at the ends counted.
        pad_token_id: what shorter texts are filled up with.
        added_tokens_encoder: tokens that are no pieces of words, and their numbers.
    """

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        self._tokens = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokens.no_truncation()
        self.model_max_length = int(config["model_max_length"])
        self.pad_token_id = self._tokens.get_vocab()[config["pad_token"]]
        added = self._tokens.get_added_tokens_decoder()
        self.added_tokens_encoder = {token.content: number for number, token in added.items()}

    def __len__(self) -> int:
        """Number of tokens it knows."""
        return int(self._tokens.get_vocab_size())

    def __call__(
        self, text: str | Sequence[str], *, max_length: int | None = None, return_tensors: str | None = None, **_: Any
    ) -> dict[str, Any]:
        """The numbers of the tokens of a text, or of several, as "input_ids".

        Args:
            text: one or several.
            max_length: longer ones are cut, the end-of-text token kept; None leaves them whole.
            return_tensors: "pt" gives a tensor (B, L), filled up to the longest; None gives lists.
        """
        encoded = self._tokens.encode_batch([text] if isinstance(text, str) else list(text))
        rows = [list(one.ids) for one in encoded]
        rows = [
            row if max_length is None or len(row) <= max_length else [*row[: max_length - 1], row[-1]] for row in rows
        ]
        if return_tensors is not None:
            longest = max(map(len, rows))
            rows = [[*row, *[self.pad_token_id] * (longest - len(row))] for row in rows]
            return {"input_ids": torch.tensor(rows)}
        return {"input_ids": rows[0] if isinstance(text, str) else rows}

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text without those at its ends."""
        return list(self._tokens.encode(text, add_special_tokens=False).tokens)

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """The tokens of numbers."""
        return [str(self._tokens.id_to_token(number)) for number in ids]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of tokens."""
        text = str(self._tokens.decode(list(ids), skip_special_tokens=skip_special_tokens))
        return text.replace("</w>", " ").strip()
