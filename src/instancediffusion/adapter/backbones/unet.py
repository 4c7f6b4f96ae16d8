"""The UNets of Stable Diffusion (`UNet2DConditionModel`), which all its versions share.

Transformers, their blocks and their attention modules get a subclass in place of their class; nothing else of them
changes, so parameter names, processors and LoRA work as before, and taking the graft off restores the class. The
subclasses act in `__call__`, outside of `forward`: what wraps `forward` (offload hooks, HyperTile) is wrapped with its
own input and output. ScaleU acts on the decoder's residual blocks, which see the joined features first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, cast

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock, FeedForward
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from instancediffusion.adapter.grounding import Grounding
from instancediffusion.adapter.kernels import QuickConvolution, QuickFeedForward, attention
from instancediffusion.adapter.regional import RegionalCaptions
from instancediffusion.adapter.token_merging import TokenMerging
from instancediffusion.conditioning.text import TextBank, encode_texts
from instancediffusion.errors import ModelError

from .backbone import Backbone

_POSITION_OF_KWARGS = 4  # of `cross_attention_kwargs` after `hidden_states` when a block is called by position


class GroundedTransformer(Transformer2DModel):
    """A transformer that gives the grounding the size of its feature map, which its blocks cannot see."""

    def __call__(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As the stock transformer, of a map (B, C, H, W)."""
        given = kwargs.get("cross_attention_kwargs") or {}
        grounding = given.get("grounding")
        if grounding is not None:
            height, width = hidden_states.shape[-2:]
            sized = {"grounding": grounding.on_map(len(hidden_states), height, width)}
            for name in ("captions", "merging"):
                if given.get(name) is not None:
                    sized[name] = given[name].on_map(height, width)
            kwargs["cross_attention_kwargs"] = {**given, **sized}
        return super().__call__(hidden_states, *args, **kwargs)

    def _get_output_for_continuous_inputs(
        self, hidden_states: Tensor, residual: Tensor, batch_size: int, height: int, width: int, inner_dim: int
    ) -> Tensor:
        """As the stock transformer, which first brings what comes out of its blocks, channels last, to another order.

        A processor's convolutions take it as it is.
        """
        if self.use_linear_projection or hidden_states.device.type != "cpu":
            stock = super()._get_output_for_continuous_inputs
            found: Tensor = stock(hidden_states, residual, batch_size, height, width, inner_dim)
            return found
        hidden_states = hidden_states.reshape(batch_size, height, width, inner_dim).permute(0, 3, 1, 2)
        projected: Tensor = self.proj_out(hidden_states)
        return projected + residual


class GroundedBlock(BasicTransformerBlock):
    """A transformer block that hands its input on to its self-attention along with the grounding."""

    grounding_layer: str

    def __call__(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As the stock block; `cross_attention_kwargs` may hold what is ours.

        That is a `Grounding`, `PromptKeys`, `RegionalCaptions` and a `TokenMerging`.
        """
        given = args[_POSITION_OF_KWARGS] if len(args) > _POSITION_OF_KWARGS else kwargs.get("cross_attention_kwargs")
        ours = ("grounding", "prompt_keys_values", "captions", "merging")
        grounding, prompt, captions, merging = ((given or {}).get(name) for name in ours)
        if grounding is None and prompt is None:
            return super().__call__(hidden_states, *args, **kwargs)
        passed = {name: value for name, value in (given or {}).items() if name not in ours}
        if prompt is not None and self.grounding_layer in prompt:
            passed["prompt"] = prompt[self.grounding_layer]
        if captions is not None:
            passed["captions"] = (captions, self.grounding_layer)
        if merging is not None and merging.here is not None:
            passed["merging"] = merging
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
        captions: Any = None,
        merging: TokenMerging | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """As the stock attention; `gated` and `merging` come from `GroundedBlock`; the others are not for it."""
        del prompt, captions
        alone = all(given is None for given in (*args, *kwargs.values()))  # nothing but the visual tokens has a say
        half = hidden_states.dtype == torch.bfloat16 and hidden_states.device.type == "cpu"
        attend = self._attend if alone and half and is_plain(self) else super().__call__
        merged = merging.of(hidden_states) if merging is not None and alone else None
        if merged is not None:
            attended = merged.attended(hidden_states, lambda _, rows: attend(rows))
        else:
            attended = attend(hidden_states, *args, **kwargs)
        if gated is None:
            return attended
        grounding, name, residual = gated
        if attended.shape != residual.shape:
            raise ModelError(
                f"unet: {name} attends to {attended.shape[1]} of {residual.shape[1]} visual tokens, as token merging "
                "makes it; instances need all of them: take that patch off"
            )
        return attended + grounding.change(name, residual + attended, merged)

    def _attend(self, hidden_states: Tensor, *_: None, **__: None) -> Tensor:
        """As the stock processor, by our own attention; (B, L, C)."""
        query, keys, values = (_split(part(hidden_states), self.heads) for part in (self.to_q, self.to_k, self.to_v))
        attended = attention(query, keys, values).transpose(1, 2).flatten(2)
        attended = self.to_out[1](self.to_out[0](attended))
        if self.residual_connection:
            attended = attended + hidden_states
        scaled: Tensor = attended / self.rescale_output_factor
        return scaled


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
        captions: tuple[RegionalCaptions, str] | None = None,
        merging: Any = None,
        **kwargs: Any,
    ) -> Tensor:
        """As the stock attention; `gated` and `merging` are not for it.

        `prompt` are keys and values (B, S, C) of the texts; `captions` those that are read in regions, and the layer's
        name.
        """
        del gated, merging
        attended = self._attended(hidden_states, encoder_hidden_states, attention_mask, prompt, *args, **kwargs)
        if captions is None or encoder_hidden_states is None:
            return attended
        regional, name = captions
        return regional.blend(name, hidden_states, attended, encoder_hidden_states, partial(self._attended, **kwargs))

    def _attended(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None,
        attention_mask: Tensor | None,
        prompt: tuple[Tensor, Tensor] | None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        if prompt is None or encoder_hidden_states is None or not is_plain(self):
            result: Tensor = super().__call__(hidden_states, encoder_hidden_states, attention_mask, *args, **kwargs)
            return result
        query, keys, values = (_split(rows, self.heads) for rows in (self.to_q(hidden_states), *prompt))
        if attention_mask is not None:
            attention_mask = self.prepare_attention_mask(attention_mask, keys.shape[2], len(keys))
            attention_mask = attention_mask.view(len(keys), self.heads, -1, attention_mask.shape[-1])
        attended = functional.scaled_dot_product_attention(query, keys, values, attn_mask=attention_mask)
        attended = self.to_out[1](self.to_out[0](attended.transpose(1, 2).flatten(2)))
        if self.residual_connection:
            attended = attended + hidden_states
        scaled: Tensor = attended / self.rescale_output_factor
        return scaled


def _split(rows: Tensor, heads: int) -> Tensor:
    """(B, S, C) -> (B, heads, S, C / heads)."""
    return rows.unflatten(-1, (heads, -1)).transpose(1, 2)


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


def transformer_blocks(unet: nn.Module) -> Iterator[tuple[str, BasicTransformerBlock]]:
    """The transformer blocks of a UNet with their parameter paths."""
    for name, module in unet.named_modules():
        if isinstance(module, BasicTransformerBlock):
            yield name, module


def map_sizes(unet: UNet2DConditionModel, height: int, width: int) -> list[tuple[int, int]]:
    """(height, width) of the feature maps that have transformers, for latents of that size."""
    levels = []
    for block in unet.down_blocks:
        levels.append((height, width))
        if block.downsamplers is not None:
            height, width = (height + 1) // 2, (width + 1) // 2
    # The decoder goes back up through the same levels, and may have transformers where the encoder has none.
    blocks = [*zip(unet.down_blocks, levels, strict=True), (unet.mid_block, levels[-1])]
    blocks += zip(reversed(unet.up_blocks), levels, strict=True)
    return list(dict.fromkeys(size for block, size in blocks if getattr(block, "attentions", None)))


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


class UNetBackbone(Backbone):
    """What the base models that are a `UNet2DConditionModel` have in common.

    Text is encoded by one CLIP text model: contexts are its last hidden states, captions its pooled state.
    """

    network: ClassVar = UNet2DConditionModel.__name__
    per_map: ClassVar[bool] = True
    text_encoders: ClassVar[tuple[str, ...]] = ("CLIPTextModel",)
    stock: ClassVar = {
        GroundedTransformer: Transformer2DModel,
        GroundedBlock: BasicTransformerBlock,
        GroundedSelfAttention: Attention,
        UngroundedAttention: Attention,
        QuickConvolution: nn.Conv2d,
        QuickFeedForward: FeedForward,
    }

    def fits(self, network: nn.Module) -> bool:
        """Whether it is such a UNet."""
        return isinstance(network, UNet2DConditionModel)

    def sites(self, network: nn.Module) -> Iterator[tuple[str, BasicTransformerBlock]]:
        """All transformer blocks."""
        return transformer_blocks(network)

    def shape(self, block: nn.Module) -> tuple[int, int]:
        """As the self-attention's."""
        attention = cast(BasicTransformerBlock, block).attn1
        return int(attention.to_q.in_features), int(attention.heads)

    def grounded(self, block: nn.Module) -> Sequence[tuple[nn.Module, type[nn.Module]]]:
        """The block, and its self-attention, after which the gated layer runs (paper, section 3.2)."""
        attention = cast(BasicTransformerBlock, block).attn1
        return [(block, GroundedBlock), (attention, GroundedSelfAttention)]

    def check_stock(self, name: str, block: nn.Module) -> None:
        """Refuse blocks that something has patched, and those without self-attention."""
        kind, only_texts = type(block), getattr(block, "only_cross_attention", True)
        if kind is not BasicTransformerBlock or getattr(block, "attn1", None) is None or only_texts:
            raise ModelError(
                f"unet: {name} ({kind.__name__} of {kind.__module__}) is not a stock transformer block with "
                "self-attention; if something has patched it, take that off"
            )

    def attach(self, network: nn.Module) -> Sequence[RemovableHandle]:
        """Transformers give the size of their map; cross-attention takes the keys of the texts; convolutions choose."""
        for module in network.modules():
            if type(module) is Transformer2DModel:
                module.__class__ = GroundedTransformer
            elif type(module) is nn.Conv2d and module.kernel_size == (3, 3):
                module.__class__ = QuickConvolution
        for _, block in transformer_blocks(network):
            if type(block.ff) is FeedForward:
                block.ff.__class__ = QuickFeedForward
            if block.attn2 is not None:
                block.attn2.__class__ = UngroundedAttention
        return ()

    def decoder_steps(self, network: nn.Module) -> list[tuple[nn.Module, int]]:
        """The residual blocks of the decoder (paper, section 3.3)."""
        return decoder_steps(cast(UNet2DConditionModel, network))

    def map_sizes(self, network: nn.Module, height: int, width: int) -> list[tuple[int, int]]:
        """Those of the levels that have transformers."""
        return map_sizes(cast(UNet2DConditionModel, network), height, width)

    def context_dim(self, network: Any) -> int:
        """Of the cross-attention."""
        return int(network.config.cross_attention_dim)

    def latent_channels(self, network: Any) -> int:
        """What it returns; an inpainting UNet takes more."""
        return int(network.config.out_channels)

    def latent_multiple(self, network: Any) -> int:
        """Each level but the last halves them."""
        return int(2 ** (len(network.config.block_out_channels) - 1))

    def misfits(self, network: Any) -> Iterator[str]:
        """Look at what the UNet takes beside latents and texts."""
        config = network.config
        if config.get("addition_embed_type") not in (None, "text_time"):
            yield f"unet: it takes {config.get('addition_embed_type')!r} beside the time step"
        if config.get("class_embed_type") is not None or config.get("num_class_embeds") is not None:
            yield "unet: it takes classes beside the time step (an upscaler?)"
        if config.get("encoder_hid_dim_type") not in (None, "ip_image_proj"):
            yield f"unet: it takes {config.get('encoder_hid_dim_type')!r} as its context"

    def encode(
        self,
        pipeline: Any,
        texts: Sequence[str],
        *,
        captions: Sequence[str] = (),
        clip_skip: int | None = None,
        device: torch.device | str | None = None,
    ) -> TextBank:
        """By the one text encoder; see `encode_texts`."""
        return encode_texts(
            texts,
            pipeline.tokenizer,
            pipeline.text_encoder,
            device or pipeline._execution_device,
            captions=captions,
            expand=lambda text: pipeline.maybe_convert_prompt(text, pipeline.tokenizer),
            clip_skip=clip_skip,
        )

    def text_keys(self, network: nn.Module, texts: Tensor) -> PromptKeys:
        """Those of plain cross-attention layers."""
        return PromptKeys(network, texts)

    def text_inputs(
        self,
        context: Tensor,  # noqa: ARG002
        counts: Tensor | None,
        pooled: Tensor | None,  # noqa: ARG002
        size: tuple[int, int] | None,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Which texts are shorter than others."""
        return {} if counts is None else {"encoder_attention_mask": counts}

    def call(
        self,
        network: Any,
        sample: Tensor,
        timestep: Tensor,
        context: Tensor,
        grounding: Grounding,
        *,
        text_keys: Mapping[str, tuple[Tensor, Tensor]] | None = None,
        attention: Mapping[str, Any] | None = None,
        inputs: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """By `cross_attention_kwargs`, which UNet and transformers hand down to blocks."""
        handed = {**(attention or {}), "grounding": grounding, "prompt_keys_values": dict(text_keys or {})}
        sample = sample.to(context.dtype)
        if sample.device.type == "cpu":  # its convolutions, and then all layers between them, keep that order
            sample = sample.contiguous(memory_format=torch.channels_last)
        predicted: Tensor = network(
            sample,
            timestep,
            encoder_hidden_states=context,
            cross_attention_kwargs=handed,
            return_dict=False,
            **(inputs or {}),
        )[0]
        return predicted


def text_width_problems(network: Any, encoders: Sequence[Any]) -> Iterator[str]:
    """Whether text encoders, side by side, give contexts as wide as a UNet takes them."""
    width = network.config.cross_attention_dim
    widths = [encoder.config.hidden_size for encoder in encoders if encoder is not None]
    if encoders[0] is None or not isinstance(width, int) or network.config.get("encoder_hid_dim_type") is not None:
        return
    if sum(widths) != width:
        listed = " and ".join(map(str, widths))
        yield f"text_encoder: its texts have {listed} channels and the UNet takes {width}; take the model's own"
