"""The parts of an adapter, each of which can be switched off for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from instancediffusion.adapter import InstanceAdapter
from instancediffusion.adapter.unifusion import GroundingTokens
from instancediffusion.conditioning import KINDS
from instancediffusion.errors import SettingsError

HIDDEN = -1e4
"""Logit of a hidden token: its weight is zero in every floating-point type, and finite, so its column stays."""


@dataclass(frozen=True)
class Part:
    """A part of an adapter.

    Attributes:
        title: for the report.
        weights: what is zero when the part is off; the adapter then computes what it would without the part. None: the
            adapter has no such part.
        hides: kind of tokens that nothing attends to when the part is off, an index as in `GroundingTokens.kind`.
    """

    title: str
    weights: Callable[[InstanceAdapter], Sequence[Tensor] | None]
    hides: int | None = None


def _layers(adapter: InstanceAdapter) -> list[Any]:
    return [adapter.layers[key] for key in adapter.layer_names]


def _relative(adapter: InstanceAdapter) -> list[Tensor] | None:
    found = [getattr(layer, "relative", None) for layer in _layers(adapter)]
    return [one.weight for one in found if one is not None] or None


def _segmentation(adapter: InstanceAdapter) -> list[Tensor] | None:
    return None if adapter.unifusion.mask_encoder is None else []


PARTS: dict[str, Part] = {
    "attention": Part("gated self-attention", lambda a: [layer.alpha_attn for layer in _layers(a)]),
    "feed_forward": Part("gated feed-forward", lambda a: [layer.alpha_dense for layer in _layers(a)]),
    "relative_values": Part("box-relative values", _relative),
    "scaleu": Part("ScaleU", lambda a: [w for module in a.scaleu for w in module.parameters()] or None),
    "order_embedding": Part("order embedding", lambda a: [a.unifusion.z_order.weight]),
    **{f"{kind}_tokens": Part(f"{kind} tokens", lambda _: [], number) for number, kind in enumerate(KINDS)},
    "segmentation_tokens": Part("segmentation tokens", _segmentation, len(KINDS)),
}
"""Every part by name. Visibility, the Multi-instance Sampler and guidance are settings, not weights."""


def lacking(adapter: InstanceAdapter, name: str) -> str | None:
    """Say why an adapter has nothing to switch off here; None if it has.

    Raises:
        SettingsError: no such part.
    """
    weights = _part(name).weights(adapter)
    if weights is None:
        return "this model has none"
    if weights and not any(bool(weight.any()) for weight in weights):
        return "never trained here: all its weights are zero"
    return None


@contextmanager
def switched_off(adapter: InstanceAdapter, names: Sequence[str]) -> Iterator[None]:
    """Run an adapter without some of its parts; afterwards it is what it was, to the bit, whatever happened.

    Args:
        adapter: changed within the context. Groundings made before are not.
        names: of `PARTS`; what the adapter lacks is off anyhow.

    Raises:
        SettingsError: no such part.
    """
    parts = [_part(name) for name in names]
    weights = [weight for part in parts for weight in part.weights(adapter) or ()]
    kept = [weight.detach().clone() for weight in weights]
    hidden = [part.hides for part in parts if part.hides is not None]
    hook = adapter.unifusion.register_forward_hook(_hiding(hidden)) if hidden else None
    try:
        with torch.no_grad():
            for weight in weights:
                weight.zero_()
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, kept, strict=True):
                weight.copy_(value)
        if hook is not None:
            hook.remove()


def _part(name: str) -> Part:
    if name not in PARTS:
        raise SettingsError(f"part: {name!r} is none of {', '.join(PARTS)}")
    return PARTS[name]


def _hiding(kinds: Sequence[int]) -> Callable[..., GroundingTokens]:
    """Return a hook that hides all tokens of some kinds, padding included, from every visual token."""

    def hook(_: torch.nn.Module, __: tuple[Any, ...], tokens: GroundingTokens) -> GroundingTokens:
        off = torch.isin(tokens.kind, torch.tensor(kinds, device=tokens.kind.device))
        return replace(tokens, log_weight=tokens.log_weight.masked_fill(off, HIDDEN))

    return hook
