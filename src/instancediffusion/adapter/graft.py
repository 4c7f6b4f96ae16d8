"""Grafting onto a stock `UNet2DConditionModel`, without copying its code and without touching its parameters.

The transformer blocks and their attention modules get a subclass in place of their class; nothing else of them
changes, so parameter names, processors, LoRA and `deepcopy` work as before, and taking the graft off restores
the class. ScaleU is a forward pre-hook on the decoder's residual blocks, which see the joined features first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from instancediffusion.adapter.gated_attention import GatedSelfAttention
from instancediffusion.adapter.grounding import Grounding
from instancediffusion.adapter.scaleu import ScaleU
from instancediffusion.errors import ModelError

_POSITION_OF_KWARGS = 4  # of `cross_attention_kwargs` after `hidden_states` when a block is called by position


class GroundedBlock(BasicTransformerBlock):
    """A transformer block that hands its input on to its self-attention along with the grounding."""

    grounding_layer: str

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As the stock block; `cross_attention_kwargs` may hold a `Grounding`."""
        given = args[_POSITION_OF_KWARGS] if len(args) > _POSITION_OF_KWARGS else kwargs.get("cross_attention_kwargs")
        grounding = (given or {}).get("grounding")
        if grounding is None:
            return super().forward(hidden_states, *args, **kwargs)
        passed = {name: value for name, value in (given or {}).items() if name != "grounding"}
        if grounding.scale != 0:
            passed["gated"] = (grounding, self.grounding_layer, hidden_states)
        if len(args) > _POSITION_OF_KWARGS:
            args = (*args[:_POSITION_OF_KWARGS], passed, *args[_POSITION_OF_KWARGS + 1 :])
        else:
            kwargs["cross_attention_kwargs"] = passed
        return super().forward(hidden_states, *args, **kwargs)


class GroundedSelfAttention(Attention):
    """Self-attention followed by the gated self-attention of its block.

    The stock block adds the result a to its input x. The gated layer acts on x + a, so a plus its change is
    returned.
    """

    def forward(
        self,
        hidden_states: Tensor,
        *args: Any,
        gated: tuple[Grounding, str, Tensor] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """As the stock attention; `gated` comes from `GroundedBlock`."""
        attended: Tensor = super().forward(hidden_states, *args, **kwargs)
        if gated is None:
            return attended
        grounding, name, residual = gated
        x = residual + attended
        keys, values = grounding.keys_values[name]
        bias = grounding.bias(x.shape[1], x.dtype)
        layer = grounding.layers[name]
        frames = None if layer.frame is None else grounding.frames(x.shape[1])
        change: Tensor = layer(x, keys, values, bias, grounding.scale, frames)
        return attended + change


class UngroundedAttention(Attention):
    """Cross-attention, which is handed the same keyword arguments and has no use for ours."""

    def forward(self, *args: Any, gated: Any = None, **kwargs: Any) -> Tensor:
        """As the stock attention."""
        del gated
        result: Tensor = super().forward(*args, **kwargs)
        return result


def transformer_blocks(unet: UNet2DConditionModel) -> Iterator[tuple[str, BasicTransformerBlock]]:
    """The transformer blocks of a UNet with their parameter paths."""
    for name, module in unet.named_modules():
        if isinstance(module, BasicTransformerBlock):
            yield name, module


def decoder_steps(unet: UNet2DConditionModel) -> list[tuple[nn.Module, int]]:
    """The residual blocks of the decoder in order of execution, each with the channels of the incoming feature.

    The rest of the channels a residual block takes come from the skip connection.
    """
    skips = [unet.conv_in.out_channels]
    for block in unet.down_blocks:
        skips += [resnet.out_channels for resnet in block.resnets]
        if block.downsamplers is not None:
            skips.append(skips[-1])
    return [(resnet, resnet.in_channels - skips.pop()) for block in unet.up_blocks for resnet in block.resnets]


def graft(
    unet: UNet2DConditionModel, layers: Mapping[str, GatedSelfAttention], scaleu: Sequence[ScaleU]
) -> Callable[[], None]:
    """Graft gated self-attention and ScaleU on a UNet.

    Args:
        unet: a stock UNet.
        layers: by path of the transformer block, the gated layer that belongs to it.
        scaleu: for each decoder step; empty for none.

    Returns:
        A function that takes the graft off again.

    Raises:
        ModelError: the UNet is not stock, carries a graft already, or has other blocks than the adapter.
    """
    blocks = dict(transformer_blocks(unet))
    steps = decoder_steps(unet)
    _check(blocks, layers, [channels for _, channels in steps], scaleu)
    for name, block in blocks.items():
        block.__class__ = GroundedBlock
        block.grounding_layer = name
        block.attn1.__class__ = GroundedSelfAttention
        if block.attn2 is not None:
            block.attn2.__class__ = UngroundedAttention
    handles = [unet.register_forward_pre_hook(_announce_latents, with_kwargs=True)]
    for (resnet, _), module in zip(steps, scaleu, strict=False):
        handles.append(resnet.register_forward_pre_hook(_rescale(module)))

    def remove() -> None:
        for handle in handles:
            handle.remove()
        for block in blocks.values():
            block.__class__ = BasicTransformerBlock
            del block.grounding_layer
            for attention in (block.attn1, block.attn2):
                if attention is not None:
                    attention.__class__ = Attention

    return remove


def _check(
    blocks: Mapping[str, BasicTransformerBlock],
    layers: Mapping[str, GatedSelfAttention],
    steps: Sequence[int],
    scaleu: Sequence[ScaleU],
) -> None:
    """Refuse a UNet that the adapter does not fit."""
    if set(blocks) != set(layers):
        odd = sorted(set(blocks) ^ set(layers))
        raise ModelError(f"unet: its transformer blocks are not those of the adapter (first difference: {odd[0]})")
    widths = [len(module.b) for module in scaleu]
    if scaleu and widths != list(steps):
        raise ModelError(f"unet: its decoder steps have {list(steps)} channels, the adapter's ScaleU {widths}")
    for name, block in blocks.items():
        if type(block) is GroundedBlock:
            raise ModelError("unet: an adapter is grafted on it already; call its remove() first")
        if type(block) is not BasicTransformerBlock or block.attn1 is None or block.only_cross_attention:
            raise ModelError(f"unet: {name} is not a stock transformer block with self-attention")
        shape, fits = (block.attn1.to_q.in_features, block.attn1.heads), (layers[name].channels, layers[name].heads)
        if shape != fits:
            raise ModelError(f"unet: {name} has (channels, heads) {shape}, the adapter's layer {fits}")


def _announce_latents(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
    """Tell the grounding the size of the latents of this call, which attention layers cannot see."""
    given = kwargs.get("cross_attention_kwargs") or {}
    grounding = given.get("grounding")
    if grounding is None:
        return None
    sample = args[0] if args else kwargs["sample"]
    if grounding.batch_size != sample.shape[0]:
        raise ModelError(f"grounding: it is for {grounding.batch_size} images, the latents are {sample.shape[0]}")
    sized = grounding.for_latents(sample.shape[-2], sample.shape[-1])
    return args, {**kwargs, "cross_attention_kwargs": {**given, "grounding": sized}}


def _rescale(scaleu: nn.Module) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    # A closure, not a bound method or attribute: copying the UNet must not copy or register the adapter's weights.
    def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (scaleu(args[0]), *args[1:])

    return hook
