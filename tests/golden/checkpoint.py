"""A small checkpoint in the published layout with reproducible weights, which the golden numbers were computed from.

`layout.json.gz` lists every tensor: group, name, shape, kind of distribution, gain. Each tensor has a generator of
its own, seeded by its name, so no value depends on another tensor. Nothing is left at 0 or 1: a loader that drops
a gate, a norm or a null feature is caught.
"""

import gzip
import json
import math
import zlib
from pathlib import Path

import torch

HERE = Path(__file__).parent
_SEED_PREFIX = {"model": "", "text_encoder": "text_encoder.", "autoencoder": "autoencoder."}
_SPREAD = {"scaleu": 0.3, "null": 0.5, "position": 0.1, "norm_bias": 0.1, "vector": 0.05, "embedding": 0.5}


def _tensor(group: str, name: str, shape: list[int], kind: str, gain: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32((_SEED_PREFIX[group] + name).encode()) % 2**31)
    if kind == "gate":  # 0.3 to 0.8, of either sign
        size = torch.rand((), generator=generator) * 0.5 + 0.3
        return torch.empty(shape).copy_(size if torch.rand((), generator=generator) < 0.6 else -size)
    value = torch.empty(shape)
    if kind == "layer_scale":
        value.uniform_(0.05, 0.3, generator=generator)
        return value * torch.where(torch.rand(shape, generator=generator) < 0.5, -1.0, 1.0)
    if kind == "norm_weight":
        return value.normal_(0, 0.1, generator=generator) + 1
    spread = _SPREAD.get(kind) or gain / math.sqrt(math.prod(shape[1:]))
    return value.normal_(0, spread, generator=generator)


def published_checkpoint() -> dict[str, dict[str, torch.Tensor]]:
    """The dictionary that the published training code would have saved."""
    layout = json.loads(gzip.decompress((HERE / "layout.json.gz").read_bytes()))
    groups: dict[str, dict[str, torch.Tensor]] = {name: {} for name in _SEED_PREFIX}
    for group, name, shape, kind, gain in layout["tensors"]:
        groups[group][name] = _tensor(group, name, shape, kind, gain)
    groups["text_encoder"]["transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    return groups


def hollow(groups: dict[str, dict[str, torch.Tensor]], value: float = 0.0) -> dict[str, dict[str, torch.Tensor]]:
    """The same layout where every tensor repeats one number: a file of it is small."""
    return {
        group: {name: torch.tensor(value, dtype=found.dtype).expand(found.shape) for name, found in tensors.items()}
        for group, tensors in groups.items()
    }
