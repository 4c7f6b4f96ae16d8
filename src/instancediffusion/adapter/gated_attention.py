"""Gated self-attention between the visual tokens of a feature map and the grounding tokens (paper, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from instancediffusion.adapter.kernels import QuickFeedForward, attention, is_exporting, takes_blocks
from instancediffusion.adapter.token_merging import MergedTokens
from instancediffusion.conditioning.attention_mask import AttentionBias


class GatedSelfAttention(nn.Module):
    """x <- x + s tanh(a) (SelfAttn(LN[x; o])_x + R r) ; x <- x + s tanh(d) FF(LN x), with o = Linear(tokens).

    R r are box-relative values, ours; layers of published weights have no R.

    Only the visual tokens x are queries; what grounding tokens attend to would be thrown away. Layer normalisation is
    per token, so the keys and values of the grounding tokens depend on neither x nor the time step: `keys_values`
    computes them once per scene.
    """

    def __init__(self, channels: int, token_dim: int, heads: int, relative_values: int = 0) -> None:
        """Build one layer.

        Args:
            channels: C of the feature map.
            token_dim: D of the grounding tokens.
            heads: attention heads; divides `channels`.
            relative_values: width of the box-relative features, see `RelativeFeatures`; 0, none, as published.
        """
        super().__init__()
        if channels % heads:
            raise ValueError(f"heads: {heads} does not divide {channels} channels")
        self.channels, self.heads = channels, heads
        self.linear = nn.Linear(token_dim, channels)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(channels, channels, bias=False)
        self.to_v = nn.Linear(channels, channels, bias=False)
        self.to_out = nn.Linear(channels, channels)
        self.ff = QuickFeedForward(channels, activation_fn="geglu")
        self.relative = nn.Linear(relative_values, channels, bias=False) if relative_values else None
        if self.relative is not None:
            nn.init.zeros_(self.relative.weight)
        # Both gates start at tanh(0) = 0: a new adapter leaves the base model as it is.
        self.alpha_attn = nn.Parameter(torch.zeros(()))
        self.alpha_dense = nn.Parameter(torch.zeros(()))

    def keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, T, C) of the grounding tokens (B, T, D)."""
        rows = self.norm1(self.linear(tokens))
        return self.to_k(rows), self.to_v(rows)

    def forward(
        self,
        x: Tensor,
        token_keys: Tensor,
        token_values: Tensor,
        bias: AttentionBias | None,
        scale: float,
        relative: Tensor | None = None,
        merged: MergedTokens | None = None,
    ) -> Tensor:
        """What to add to x.

        Args:
            x: (B, L, C) visual tokens of the feature map.
            token_keys: (B, T, C) from `keys_values`.
            token_values: (B, T, C) from `keys_values`.
            bias: what is added to the logits; None = nothing.
            scale: the grounding scale s of this step.
            relative: (B, L, F) box-relative features, for layers that read them; see `RelativeFeatures.seen`.
            merged: visual tokens that attend, and are attended to, as one.

        Returns:
            (B, L, C), the difference to the new x.
        """
        given = x.dtype
        x = x.to(self.norm1.weight.dtype)  # the adapter may be of another type than the UNet it is in
        rows = self.norm1(x)
        token_keys, token_values = token_keys.to(rows.dtype), token_values.to(rows.dtype)
        if merged is None:
            attended = self._attended(rows, token_keys, token_values, bias)
        else:

            def of_image(image: int, joined: Tensor) -> Tensor:
                own = None if bias is None else merged.bias(image, bias)
                return self._attended(joined, token_keys[image, None], token_values[image, None], own)

            attended = merged.attended(rows, of_image)
        if self.relative is not None and relative is not None:
            attended = attended + self.relative(relative.to(self.relative.weight.dtype)).to(attended.dtype)
        change = scale * self.alpha_attn.tanh() * attended
        whole: Tensor = change + scale * self.alpha_dense.tanh() * self.ff(self.norm2(x + change))
        return whole.to(given)

    def _attended(self, rows: Tensor, token_keys: Tensor, token_values: Tensor, bias: AttentionBias | None) -> Tensor:
        """(B, L, C) of normalised visual tokens of that shape."""
        query, keys, values = (self._split(part(rows)) for part in (self.to_q, self.to_k, self.to_v))
        attended = attend(query, keys, values, self._split(token_keys), self._split(token_values), bias)
        projected: Tensor = self.to_out(attended.transpose(1, 2).flatten(2))
        return projected

    def _split(self, rows: Tensor) -> Tensor:
        """(B, S, C) -> (B, heads, S, C / heads)."""
        return rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)


LEAST_APART = 1024
"""Fewest visual tokens of a map whose two kinds of keys are attended to separately; below, joining them costs less."""


def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    token_keys: Tensor,
    token_values: Tensor,
    bias: AttentionBias | None,
) -> Tensor:
    """Attention of visual tokens to themselves and to grounding tokens, under one softmax.

    Where the bias is one for each pair of visual and grounding token, a joint one is L x (L + T) numbers, nearly all
    of them 0. The two kinds of keys are then attended to separately, and joined by the log-sum-exps of their softmaxes,
    which is exact. It takes a kernel that returns the log-sum-exp, and has no gradient: CPUs only.

    Args:
        query: (B, heads, L, D).
        keys: (B, heads, L, D) of the visual tokens.
        values: as `keys`.
        token_keys: (B, heads, T, D) of the grounding tokens.
        token_values: as `token_keys`.
        bias: what is added to the logits.

    Returns:
        (B, heads, L, D).
    """
    if bias is not None and _is_separate(query, bias):
        return _attend_separately(query, keys, values, token_keys, token_values, bias.tokens)
    length = keys.shape[-2]
    keys, values = torch.cat([keys, token_keys], -2), torch.cat([values, token_values], -2)
    if bias is None or bias.visual is None:
        return attention(query, keys, values, None if bias is None else bias.tokens)
    mask = bias.to(query.dtype).joined(length)
    attended: Tensor = functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
    return attended


def _is_separate(query: Tensor, bias: AttentionBias) -> bool:
    return (
        query.device.type == "cpu"
        and not torch.is_grad_enabled()
        and bias.visual is None
        and bias.tokens.shape[-2] > 1
        and query.shape[-2] >= LEAST_APART
        and not takes_blocks(query)
        and not is_exporting()
        and hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu")
    )


def _attend_separately(
    query: Tensor, keys: Tensor, values: Tensor, token_keys: Tensor, token_values: Tensor, bias: Tensor
) -> Tensor:
    visual, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, keys, values)
    # The shape of the log-sums is not documented: (B, heads, L), or (B, L, heads) in some versions.
    log_sum = log_sum if log_sum.shape == query.shape[:-1] else log_sum.transpose(1, 2)
    # Where all tokens are hidden, a finite logarithm of nothing: their weight is then 0, and no 0/0 beside it.
    hidden = bias.float().clamp(min=-1e4)
    logits = (query @ token_keys.transpose(-1, -2)).float() * query.shape[-1] ** -0.5 + hidden
    grounded = logits.softmax(-1).to(query.dtype) @ token_values
    weight = torch.sigmoid(logits.logsumexp(-1) - log_sum.float())[..., None]
    return torch.lerp(visual.float(), grounded.float(), weight).to(query.dtype)
