"""Linear layers and convolutions of 8-bit numbers: what comes in is measured, and rounded to what was measured.

Weights are rounded for each output channel, symmetrically; activations for a whole tensor, by the least and greatest
values that came in while pictures were made. A few channels of a network are many times as large as the others, and
would leave those few of the 256 levels: both are shared out between activations and weights as in SmoothQuant (Xiao et
al. 2023, section 4), X W = (X / s) (s W), but with s of the activations alone, so that layers of one input (queries,
keys and values) round it once. Ranges belong to layers, not to graphs, and serve every graph that has the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAST_CHANNELS = 32
"""Layers of fewer channels in or out stay as they are: the first and the last one, and the small ones of LoRA files.
They cost little, and the first and last one touch the latents."""
KEPT = ("relative",)
"""Layers of these names stay as they are: box-relative values cost little, and are a seventh of `mini`'s error."""
SMOOTHING = 0.5
"""The power of a channel's greatest magnitude that activations are divided by."""

_FORWARD = (nn.Linear.forward, nn.Conv2d.forward)

Ranges = MutableMapping[str, tuple[Tensor, Tensor]]
"""Least and greatest value (C,) of each input channel, by layer: `unet.down_blocks.0. ...`, `adapter.layers. ...`."""


def quantizable_layers(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Linear | nn.Conv2d]]:
    """Layers that can be computed with 8-bit numbers, by name.

    Args:
        modules: networks by what their names begin with.

    Yields:
        Name and layer.
    """
    for prefix, root in modules.items():
        for name, module in root.named_modules():
            if not isinstance(module, nn.Linear | nn.Conv2d) or type(module.weight) not in (nn.Parameter, Tensor):
                continue  # of another library, with numbers of its own
            if type(module).forward not in _FORWARD or "forward" in vars(module):
                continue  # it does something else
            grouped = isinstance(module, nn.Conv2d) and (module.groups > 1 or module.padding_mode != "zeros")
            kept = grouped or name.rpartition(".")[2] in KEPT
            if not kept and min(module.weight.shape[:2]) >= LEAST_CHANNELS:
                yield f"{prefix}.{name}", module


@contextmanager
def measuring(modules: Mapping[str, nn.Module], ranges: Ranges) -> Iterator[None]:
    """Widen ranges to all that comes into layers while the context is open.

    Layers that get one row for a picture (those of the time step) are left out: they cost nothing.

    Args:
        modules: networks by what their names begin with.
        ranges: those so far; changed in place.
    """

    def seen(layer: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        given = args[0]
        channel = 1 if isinstance(module, nn.Conv2d) else given.dim() - 1
        if given.dim() < 3:
            return
        others = [axis for axis in range(given.dim()) if axis != channel]
        low, high = given.detach().amin(others).float().clone(), given.detach().amax(others).float().clone()
        if layer in ranges:
            low, high = torch.minimum(low, ranges[layer][0]), torch.maximum(high, ranges[layer][1])
        ranges[layer] = low, high

    hooks = [layer.register_forward_pre_hook(partial(seen, name)) for name, layer in quantizable_layers(modules)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def quantized(modules: Mapping[str, nn.Module], ranges: Mapping[str, tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Let layers with ranges compute with rounded numbers while the context is open, for graphs that are made in it.

    A compiler for 8-bit numbers finds the pattern that it knows: activations that are rounded and brought back
    (`torch.fake_quantize_per_tensor_affine`), weights that are 8-bit constants times their scales.

    Args:
        modules: networks by what their names begin with.
        ranges: of the layers that are to round; all others compute as they do.
    """
    changed = [(layer, ranges[name]) for name, layer in quantizable_layers(modules) if name in ranges]
    for layer, (low, high) in changed:
        layer.forward = _rounding(layer, low, high)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        for layer, _ in changed:
            del layer.forward


def _rounding(layer: nn.Linear | nn.Conv2d, low: Tensor, high: Tensor) -> Callable[[Tensor], Tensor]:
    """The forward function of a layer that rounds, from the range of each input channel."""
    pixels = isinstance(layer, nn.Conv2d)
    magnitude = torch.maximum(high, -low).clamp(min=1e-5)
    share = (magnitude / magnitude.max()).clamp(min=1e-4) ** SMOOTHING
    scale, zero, levels = _levels(float((low / share).min()), float((high / share).max()), signed=not pixels)
    weight = layer.weight.detach().float() * share.view(-1, *[1] * (layer.weight.dim() - 2))
    steps = (weight.flatten(1).abs().amax(1) / 127).clamp(min=1e-12).view(-1, *[1] * (weight.dim() - 1))
    rounded = (weight / steps).round().to(torch.int8)
    inverse = (1 / share).view(-1, *[1] * (2 * pixels))
    bias = None if layer.bias is None else layer.bias.detach().float()

    def forward(given: Tensor) -> Tensor:
        x = torch.fake_quantize_per_tensor_affine(given.float() * inverse, scale, zero, *levels)
        w = rounded.to(torch.float32) * steps
        made = layer._conv_forward(x, w, bias) if isinstance(layer, nn.Conv2d) else functional.linear(x, w, bias)
        return made.to(given.dtype)

    return forward


def _levels(low: float, high: float, *, signed: bool) -> tuple[float, int, tuple[int, int]]:
    """Scale, zero point, and the least and greatest level. 0 is a level: convolutions are padded with it."""
    if signed:  # what comes into linear layers is normalised; products without a zero point are quicker
        return max(high, -low, 1e-6) / 127, 0, (-127, 127)
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(high - low, 1e-6) / 255
    return scale, round(-low / scale), (0, 255)
