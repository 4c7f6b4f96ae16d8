"""The text side: prompts to context, captions to pooled features, with one CLIP text model."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from instancediffusion.training.config import TextConfig


def build_text_model(config: TextConfig, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Make a stock text model with random weights that fits a tokenizer."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=4 * config.width,
            projection_dim=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=config.length,
            bos_token_id=tokenizer.bos_token_id,
            # Read by the model's pooling: the feature of a text is that at its first end mark.
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            attn_implementation="eager",
        )
    )


class TextSide:
    """Encodes the texts of a batch; each distinct caption once.

    Args:
        tokenizer: pads prompts to its full length: the padding is part of what the UNet attends to.
        model: the text model.
    """

    def __init__(self, tokenizer: CLIPTokenizer, model: CLIPTextModel) -> None:
        self.tokenizer, self.model = tokenizer, model

    def context(self, prompts: list[str]) -> Tensor:
        """(B, length, width) features of every token of the prompts."""
        tokens = self.tokens(prompts, "max_length")
        features: Tensor = self.model(tokens).last_hidden_state
        return features

    def captions(self, captions: list[list[str]], slots: int) -> Tensor:
        """(B, slots, width) pooled features; slots without a caption are zero.

        Attention is causal and the pooled feature is that of the first end mark, so padding to the longest caption
        only, instead of to the full length, changes nothing.
        """
        distinct = sorted({caption for group in captions for caption in group})
        out = torch.zeros(len(captions), slots, self.model.config.hidden_size, device=self.model.device)
        if not distinct:
            return out
        pooled = self.model(self.tokens(distinct, "longest")).pooler_output
        number = {caption: row for row, caption in enumerate(distinct)}
        where = [(row, slot, number[c]) for row, group in enumerate(captions) for slot, c in enumerate(group)]
        rows, columns, sources = torch.tensor(where, device=out.device).T
        return out.to(pooled.dtype).index_put((rows, columns), pooled[sources])

    def pooled(self, texts: list[str], parts: int = 3) -> Tensor:
        """(N, width) pooled features; texts of like length go through the model together, in so many parts."""
        ids = self.tokenizer(texts, max_length=self.length, truncation=True).input_ids
        order = sorted(range(len(texts)), key=lambda i: len(ids[i]))
        size = -(-len(order) // parts)
        found = [
            self.model(self._padded([ids[i] for i in order[start : start + size]])).pooler_output
            for start in range(0, len(order), size)
        ]
        inverse = torch.empty(len(order), dtype=torch.long)
        inverse[torch.tensor(order)] = torch.arange(len(order))
        return torch.cat(found)[inverse.to(self.model.device)]

    def _padded(self, ids: list[list[int]]) -> Tensor:
        tokens: Tensor = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt")["input_ids"]
        return tokens.to(self.model.device)

    @property
    def length(self) -> int:
        """Tokens that are read of a text, marks included."""
        return min(self.tokenizer.model_max_length, self.model.config.max_position_embeddings)

    def tokens(self, texts: list[str], padding: str) -> Tensor:
        """(B, L) entries, padded to the "longest" or to "max_length"."""
        read = self.tokenizer(texts, padding=padding, max_length=self.length, truncation=True, return_tensors="pt")
        tokens: Tensor = read.input_ids.to(self.model.device)
        return tokens
