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

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from torch.nn import functional
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
                sized.at(height * width)
            kwargs["cross_attention_kwargs"] = {**given, "grounding": sized}
        return super().__call__(hidden_states, *args, **kwargs)


class GroundedBlock(BasicTransformerBlock):
    """A transformer block that hands its input on to its self-attention along with the grounding."""

    grounding_layer: str

    def __call__(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As the stock block; `cross_attention_kwargs` may hold a `Grounding`, and what `PromptKeys` gives."""
        given = args[_POSITION_OF_KWARGS] if len(args) > _POSITION_OF_KWARGS else kwargs.get("cross_attention_kwargs")
        grounding, prompt = (given or {}).get("grounding"), (given or {}).get("prompt_keys_values")
        if grounding is None and prompt is None:
            return super().__call__(hidden_states, *args, **kwargs)
        ours = ("grounding", "prompt_keys_values")
        passed = {name: value for name, value in (given or {}).items() if name not in ours}
        if prompt is not None and self.grounding_layer in prompt:
            passed["prompt"] = prompt[self.grounding_layer]
        if grounding is not None and grounding.scale != 0:
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
        prompt: Any = None,
        **kwargs: Any,
    ) -> Tensor:
        """As the stock attention; `gated` comes from `GroundedBlock`, and `prompt` is not for it."""
        del prompt
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
        told = grounding.at(x.shape[1])
        if grounding.ran is not None:
            grounding.ran.append(name)
        layer = grounding.layers[name]
        change: Tensor = layer(x, keys, values, told.bias, grounding.scale, told.relative)
        return attended + change


class UngroundedAttention(Attention):
    """Cross-attention, which may be handed the keys and values of the prompt."""

    def __call__(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *args: Any,
        gated: Any = None,
        prompt: tuple[Tensor, Tensor] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """As the stock attention; `gated` is not for it, and `prompt` are keys and values (B, S, C) of the texts."""
        del gated
        if prompt is None or encoder_hidden_states is None or not is_plain(self):
            result: Tensor = super().__call__(hidden_states, encoder_hidden_states, attention_mask, *args, **kwargs)
            return result
        query, (keys, values) = self._split(self.to_q(hidden_states)), prompt
        if attention_mask is not None:
            attention_mask = self.prepare_attention_mask(attention_mask, keys.shape[1], len(keys))
            attention_mask = attention_mask.view(len(keys), self.heads, -1, attention_mask.shape[-1])
        attended = functional.scaled_dot_product_attention(
            query, self._split(keys), self._split(values), attn_mask=attention_mask
        )
        attended = self.to_out[1](self.to_out[0](attended.transpose(1, 2).flatten(2)))
        if self.residual_connection:
            attended = attended + hidden_states
        scaled: Tensor = attended / self.rescale_output_factor
        return scaled

    def _split(self, rows: Tensor) -> Tensor:
        """(B, S, C) -> (B, heads, S, C / heads)."""
        return rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def is_plain(attention: Attention) -> bool:
    """Whether keys and values of a cross-attention are two linear maps of the texts and nothing else.

    They are not with LoRA layers, IP-Adapters, quantised weights, or where something has wrapped or hooked them.
    """
    linear = (attention.to_k, attention.to_v)
    touched = any(
        "forward" in vars(part) or part._forward_hooks or part._forward_pre_hooks for part in (attention, *linear)
    )
    norms = (attention.spatial_norm, attention.group_norm, attention.norm_cross, attention.norm_q, attention.norm_k)
    return (
        type(attention.processor) is AttnProcessor2_0
        and all(type(part) is nn.Linear for part in linear)
        and not touched
        and not any(norms)
    )


class PromptKeys:
    """Keys and values of the texts of a run in every plain cross-attention of a UNet: they depend on no step.

    Kept here and not on the UNet; the weights have to stay as they are for as long as it is used.

    Args:
        unet: a grafted UNet.
        texts: (K, S, D); what is beyond a text's length is not looked at.
    """

    def __init__(self, unet: nn.Module, texts: Tensor) -> None:
        self._layers = {name: block.attn2 for name, block in transformer_blocks(unet) if block.attn2 is not None}
        self._texts = texts
        self._known: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}

    def of(self, rows: Sequence[int], length: int) -> dict[str, tuple[Tensor, Tensor]]:
        """By layer, keys and values (R, `length`, C) of the texts `rows`, where that is known.

        Left out are layers that are not plain, and those whose weights are elsewhere until they are needed.
        """
        found = {}
        for name, layer in self._layers.items():
            if not is_plain(layer) or layer.to_k.weight.device != self._texts.device:
                continue
            new = [row for row in dict.fromkeys(rows) if (name, row) not in self._known]
            if new:
                texts = self._texts[new]
                pairs = zip(layer.to_k(texts), layer.to_v(texts), strict=True)
                self._known |= {(name, row): pair for row, pair in zip(new, pairs, strict=True)}
            own = [self._known[name, row] for row in rows]
            found[name] = (
                torch.stack([keys[:length] for keys, _ in own]),
                torch.stack([values[:length] for _, values in own]),
            )
        return found


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


def map_sizes(unet: UNet2DConditionModel, height: int, width: int) -> list[tuple[int, int]]:
    """(height, width) of the feature maps that have transformers, for latents of that size."""
    sizes = []
    for block in unet.down_blocks:
        if getattr(block, "attentions", None):
            sizes.append((height, width))
        if block.downsamplers is not None:
            height, width = (height + 1) // 2, (width + 1) // 2
    if getattr(unet.mid_block, "attentions", None):
        sizes.append((height, width))
    return list(dict.fromkeys(sizes))


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
