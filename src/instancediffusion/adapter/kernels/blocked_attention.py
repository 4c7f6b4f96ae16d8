"""Attention of visual tokens on a processor, in half precision: written out in blocks where that is quicker.

The fused kernel of processors computes half precision in float32: it gains nothing from instructions for bfloat16.
Matrix products and a softmax of a few hundred rows at a time do, and stay in the cache. Their logits are rounded to
bfloat16, whose error is that of the type (`tests/adapter/test_kernels.py` bounds it); float32 is never computed so.
"""

from __future__ import annotations

import time
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 256
"""Rows of a block: its logits over 4096 tokens are 2 MB."""
_LEAST = 1024
"""Fewest tokens for which it is asked what is quicker."""
_GAIN = 0.9
"""The fraction of the fused kernel's time below which blocks are taken: timings scatter."""


def attention(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention.

    Args:
        query: (B, heads, L, D).
        keys: (B, heads, S, D).
        values: as `keys`.
        bias: added to the logits of the last T keys: (B, 1, 1 or L, T).

    Returns:
        (B, heads, L, D).
    """
    if takes_blocks(query):
        return in_blocks(query, keys, values, bias)
    mask = None if bias is None else functional.pad(bias.to(query.dtype), (keys.shape[-2] - bias.shape[-1], 0))
    attended: Tensor = functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
    return attended


def takes_blocks(query: Tensor) -> bool:
    """Whether attention of queries (B, heads, L, D) is written out in blocks here."""
    return (
        query.device.type == "cpu"
        and query.dtype == torch.bfloat16
        and query.shape[-2] >= _LEAST
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and blocks_pay(query.shape[-1], torch.get_num_threads())
    )


def in_blocks(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
    """The same written out, so many rows of one head at a time; arguments as those of `attention`."""
    batch, heads, length, width = query.shape
    across = keys.transpose(-1, -2) * width**-0.5
    attended = torch.empty_like(query, memory_format=torch.contiguous_format)
    for image in range(batch):
        added = None if bias is None else bias[image, 0].to(query.dtype)
        for head in range(heads):
            for start in range(0, length, BLOCK):
                rows = slice(start, start + BLOCK)
                logits = query[image, head, rows] @ across[image, head]
                if added is not None:
                    logits[:, -added.shape[-1] :] += added if len(added) == 1 else added[rows]
                torch.mm(logits.softmax(-1), values[image, head], out=attended[image, head, rows])
    return attended


@cache
def blocks_pay(width: int, threads: int) -> bool:  # noqa: ARG001 - another number of threads, another answer
    """Whether blocks are quicker than the fused kernel here, for heads of that width: measured once a process."""
    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(3, 1, 2, _LEAST, width, generator=generator).bfloat16().unbind(0)
    return _seconds(in_blocks, *parts) < _GAIN * _seconds(functional.scaled_dot_product_attention, *parts)


def _seconds(run: object, *parts: Tensor) -> float:
    """The least of three times, in seconds."""
    found = []
    for _ in range(3):
        start = time.perf_counter()
        run(*parts)  # type: ignore[operator]
        found.append(time.perf_counter() - start)
    return min(found)
