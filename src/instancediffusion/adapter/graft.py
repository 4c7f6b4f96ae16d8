"""Grafting onto a stock `UNet2DConditionModel`, without copying its code and without touching its parameters.

Transformers, their blocks and their attention modules get a subclass in place of their class; nothing else of them
changes, so parameter names, processors and LoRA work as before, and taking the graft off restores the class. The
subclasses act in `__call__`, outside of `forward`: what wraps `forward` (offload hooks, HyperTile) is wrapped with its
own input and output. ScaleU is a forward pre-hook on the decoder's residual blocks, which see the joined features
first.

All that is put on a UNet can be copied and pickled with it, and a copy has nothing in common with the original: the
copy of a whole pipeline is grafted with the copy of its adapter, the copy of a UNet alone with a copy of the ScaleU.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from instancediffusion.adapter.gated_attention import GatedSelfAttention
from instancediffusion.adapter.grounding import Grounding
from instancediffusion.adapter.scaleu import ScaleU
from instancediffusion.errors import ModelError

_POSITION_OF_KWARGS = 4  # of `cross_attention_kwargs` after `hidden_states` when a block is called by position
_RECORD = "_instance_graft"


class GroundedTransformer(Transformer2DModel):
    """A transformer that tells the grounding the size of its feature map, which its blocks cannot see."""

    def __call__(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As the stock transformer, of a map (B, C, H, W)."""
        given = kwargs.get("cross_attention_kwargs") or {}
        grounding = given.get("grounding")
        if grounding is not None:
            if grounding.batch_size != hidden_states.shape[0]:
                raise ModelError(
                    f"grounding: it is for {grounding.batch_size} images, the latents are {hidden_states.shape[0]}"
                )
            height, width = hidden_states.shape[-2:]
            sized = grounding.for_map(height, width)
            if self.gradient_checkpointing and grounding.scale != 0:  # kept features must not be made in a checkpoint
                sized.cell_features(height * width)
                sized.relative_features(height * width)
            kwargs["cross_attention_kwargs"] = {**given, "grounding": sized}
        return super().__call__(hidden_states, *args, **kwargs)


class GroundedBlock(BasicTransformerBlock):
    """A transformer block that hands its input on to its self-attention along with the grounding."""

    grounding_layer: str

    def __call__(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As the stock block; `cross_attention_kwargs` may hold a `Grounding`."""
        given = args[_POSITION_OF_KWARGS] if len(args) > _POSITION_OF_KWARGS else kwargs.get("cross_attention_kwargs")
        grounding = (given or {}).get("grounding")
        if grounding is None:
            return super().__call__(hidden_states, *args, **kwargs)
        passed = {name: value for name, value in (given or {}).items() if name != "grounding"}
        if grounding.scale != 0:
            passed["gated"] = (grounding, self.grounding_layer, hidden_states)
        if len(args) > _POSITION_OF_KWARGS:
            args = (*args[:_POSITION_OF_KWARGS], passed, *args[_POSITION_OF_KWARGS + 1 :])
        else:
            kwargs["cross_attention_kwargs"] = passed
        return super().__call__(hidden_states, *args, **kwargs)


class GroundedSelfAttention(Attention):
    """Self-attention followed by the gated self-attention of its block.

    The stock block adds the result a to its input x. The gated layer acts on x + a, so a plus its change is
    returned.
    """

    def __call__(
        self,
        hidden_states: Tensor,
        *args: Any,
        gated: tuple[Grounding, str, Tensor] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """As the stock attention; `gated` comes from `GroundedBlock`."""
        attended: Tensor = super().__call__(hidden_states, *args, **kwargs)
        if gated is None:
            return attended
        grounding, name, residual = gated
        if attended.shape != residual.shape:
            raise ModelError(
                f"unet: {name} attends to {attended.shape[1]} of {residual.shape[1]} cells, as token merging makes it; "
                "instances need all of them: take that patch off"
            )
        x = residual + attended
        keys, values = grounding.keys_values[name]
        bias, cells = grounding.bias(x.shape[1], x.dtype), grounding.cell_features(x.shape[1])
        relative = grounding.relative_features(x.shape[1])
        if grounding.ran is not None:
            grounding.ran.append(name)
        layer = grounding.layers[name]
        change: Tensor = layer(x, keys, values, bias, grounding.scale, cells, relative)
        return attended + change


class UngroundedAttention(Attention):
    """Cross-attention, which is handed the same keyword arguments and has no use for ours."""

    def __call__(self, *args: Any, gated: Any = None, **kwargs: Any) -> Tensor:
        """As the stock attention."""
        del gated
        result: Tensor = super().__call__(*args, **kwargs)
        return result


_STOCK: dict[type[nn.Module], type[nn.Module]] = {
    GroundedTransformer: Transformer2DModel,
    GroundedBlock: BasicTransformerBlock,
    GroundedSelfAttention: Attention,
    UngroundedAttention: Attention,
}


class GraftOwner:
    """Whose graft a UNet carries: it stands for one adapter, here and in copies of both.

    A copy or pickle of an adapter together with its UNet keeps them together; of one alone, it belongs to nothing.
    """

    def __init__(self, adapter: nn.Module) -> None:
        self.adopt(adapter)
        self.unet: weakref.ref[nn.Module] | None = None

    def adopt(self, adapter: nn.Module) -> None:
        """Stand for this adapter."""
        self.adapter: weakref.ref[nn.Module] | None = weakref.ref(adapter)

    def __getstate__(self) -> dict[str, Any]:
        return {"adapter": None, "unet": None}


class Graft:
    """What is on a UNet. It is kept there as a plain attribute, so that it is copied and pickled with it."""

    def __init__(self, unet: nn.Module, owner: GraftOwner, handles: Sequence[RemovableHandle]) -> None:
        self.unet, self.owner, self.handles = unet, owner, list(handles)
        self.blocks_repeated: Any = unet.__dict__.get("_repeated_blocks")
        owner.unet = weakref.ref(unet)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.owner.unet = weakref.ref(self.unet)

    def remove(self) -> None:
        """Make the UNet stock again."""
        for handle in self.handles:
            handle.remove()
        for module in self.unet.modules():
            if type(module) in _STOCK:
                module.__class__ = _STOCK[type(module)]
                module.__dict__.pop("grounding_layer", None)
        self.unet.__dict__.pop(_RECORD, None)
        self.unet.__dict__.pop("_repeated_blocks", None)
        if self.blocks_repeated is not None:
            self.unet._repeated_blocks = self.blocks_repeated
        self.owner.unet = None


class _Rescale:
    """ScaleU as a forward pre-hook. It is no module: the UNet must not register the adapter's weights."""

    def __init__(self, scaleu: nn.Module) -> None:
        self.scaleu = scaleu

    def __call__(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self.scaleu(args[0]), *args[1:])


def core_unet(unet: Any) -> Any:
    """The UNet inside of what `torch.compile`, PEFT or a data-parallel trainer put around it."""
    while isinstance(unet, nn.Module) and not isinstance(unet, UNet2DConditionModel):
        inner = next((name for name in ("_orig_mod", "base_model", "model", "module") if name in unet._modules), None)
        if inner is None:
            break
        unet = unet._modules[inner]
    return unet


def graft_on(unet: Any) -> Graft | None:
    """The graft that a UNet carries, if any."""
    found: Graft | None = getattr(core_unet(unet), "__dict__", {}).get(_RECORD)
    return found


def transformer_blocks(unet: nn.Module) -> Iterator[tuple[str, BasicTransformerBlock]]:
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
    unet: UNet2DConditionModel,
    layers: Mapping[str, GatedSelfAttention],
    scaleu: Sequence[ScaleU],
    owner: GraftOwner,
) -> None:
    """Graft gated self-attention and ScaleU on a UNet.

    Args:
        unet: a stock UNet.
        layers: by path of the transformer block, the gated layer that belongs to it.
        scaleu: for each decoder step; empty for none.
        owner: of the adapter.

    Raises:
        ModelError: the UNet is not stock, carries a graft already, or has other blocks than the adapter.
    """
    if not isinstance(unet, UNet2DConditionModel):
        raise ModelError(f"unet: {type(unet).__name__} is no UNet2DConditionModel; the adapter fits those only")
    if graft_on(unet) is not None:
        raise ModelError("unet: an adapter is grafted on it already; call its remove() first")
    blocks = dict(transformer_blocks(unet))
    steps = decoder_steps(unet)
    _check(blocks, layers, [channels for _, channels in steps], scaleu)
    for name, block in blocks.items():
        block.__class__ = GroundedBlock
        block.grounding_layer = name
        block.attn1.__class__ = GroundedSelfAttention
        if block.attn2 is not None:
            block.attn2.__class__ = UngroundedAttention
    for module in unet.modules():
        if type(module) is Transformer2DModel:
            module.__class__ = GroundedTransformer
    handles = [
        resnet.register_forward_pre_hook(_Rescale(module)) for (resnet, _), module in zip(steps, scaleu, strict=False)
    ]
    record = Graft(unet, owner, handles)
    # `compile_repeated_blocks` finds blocks by the names of their classes.
    unet._repeated_blocks = [*(getattr(unet, "_repeated_blocks", None) or ()), GroundedBlock.__name__]
    setattr(unet, _RECORD, record)


def check_grafted(unet: nn.Module, layers: Mapping[str, GatedSelfAttention]) -> None:
    """Raise `ModelError` if something has taken the place of a part of the graft since it was put on."""
    blocks = dict(transformer_blocks(core_unet(unet)))
    if set(blocks) != set(layers):
        odd = sorted(set(blocks) ^ set(layers))
        raise ModelError(f"unet: its transformer blocks have changed since the adapter was grafted on ({odd[0]})")
    for name, block in blocks.items():
        for part, wanted in ((block, GroundedBlock), (block.attn1, GroundedSelfAttention)):
            found = type(part)
            if found is not wanted:
                raise ModelError(
                    f"unet: {found.__name__} of {found.__module__} stands in the place of {name}, and would leave out "
                    "the places of instances; take that patch off (tomesd.remove_patch(pipe.unet), for one)"
                )


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
        if type(block) is not BasicTransformerBlock or block.attn1 is None or block.only_cross_attention:
            kind = type(block)
            raise ModelError(
                f"unet: {name} ({kind.__name__} of {kind.__module__}) is not a stock transformer block with "
                "self-attention; if something has patched it, take that off"
            )
        shape, fits = (block.attn1.to_q.in_features, block.attn1.heads), (layers[name].channels, layers[name].heads)
        if shape != fits:
            raise ModelError(f"unet: {name} has (channels, heads) {shape}, the adapter's layer {fits}")
