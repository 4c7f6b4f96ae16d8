"""PRX (Photoroom 2025): a transformer whose visual tokens attend to text and to each other in one attention.

A transformer has no skip connections, so there is no ScaleU. Its one attention is self- and cross-attention at once:
the gated layer runs at the input of each block, so that, as in the paper (section 3.2), visual tokens have met the
grounding tokens when they meet the text. The position of a token is given by rotary embeddings only, inside that
attention, and so not in the gated layers: `default_instance_mask` should be a rule that gives it, such as "visibility".

The network's `forward` hands its attention mask down to the blocks and looks into it nowhere: the grounding travels in
it, as part of the call, and nothing of a step is kept on a module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from diffusers.models.transformers.transformer_prx import PRXBlock, PRXTransformer2DModel
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from instancediffusion.adapter.grounding import Grounding
from instancediffusion.conditioning.text import TextBank
from instancediffusion.errors import ModelError

from .backbone import Backbone

TRAINING_STEPS = 1000
"""Timesteps of schedulers count to here; the network's go from 0 to 1."""

NATIVE_SIDE = 64
"""Side in latents of the pictures that diffusers' `PRXPipeline` makes where no size is given."""

_ARGUMENTS = ("hidden_states", "timestep", "encoder_hidden_states", "attention_mask", "attention_kwargs", "return_dict")


@dataclass(frozen=True)
class _Carried:
    """What travels as the attention mask: the mask itself (B, S) or None, and the grounding of the map."""

    mask: Tensor | None
    grounding: Grounding


class GroundedPRXBlock(PRXBlock):
    """A block whose visual tokens meet the grounding tokens first."""

    grounding_layer: str

    def __call__(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Tensor,
        image_rotary_emb: Tensor,
        attention_mask: Tensor | _Carried | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """As the stock block; `attention_mask` may carry a `Grounding`."""
        if isinstance(attention_mask, _Carried):
            grounding, attention_mask = attention_mask.grounding, attention_mask.mask
            if grounding.scale != 0:
                hidden_states = hidden_states + grounding.change(self.grounding_layer, hidden_states)
        result: Tensor = super().__call__(
            hidden_states=hidden_states,
            encoder_hidden_states=encoder_hidden_states,
            temb=temb,
            image_rotary_emb=image_rotary_emb,
            attention_mask=attention_mask,
            **kwargs,
        )
        return result


class _Tell:
    """A forward pre-hook on the network: a grounding among its `attention_kwargs` is sent on to the blocks."""

    def __call__(
        self, network: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        given = dict(zip(_ARGUMENTS, args, strict=False)) | kwargs
        attention = dict(given.get("attention_kwargs") or {})
        grounding: Grounding | None = attention.pop("grounding", None)
        if grounding is None:
            return None
        latents, patch = given["hidden_states"], network.patch_size
        height, width = latents.shape[-2] // patch, latents.shape[-1] // patch
        sized = grounding.on_map(len(latents), height, width)
        carried = _Carried(given.get("attention_mask"), sized)
        return (), {**given, "attention_kwargs": attention or None, "attention_mask": carried}


class PRX(Backbone):
    """`PRXTransformer2DModel`; text is encoded by T5Gemma, and a caption by the mean of its tokens.

    It is trained by flow matching: its scheduler is a `FlowMatchEulerDiscreteScheduler`.
    """

    name: ClassVar = "prx"
    title: ClassVar = "PRX"
    network: ClassVar = PRXTransformer2DModel.__name__
    text_encoders: ClassVar = ("T5GemmaEncoder",)
    stock: ClassVar = {GroundedPRXBlock: PRXBlock}
    flow: ClassVar = True

    def fits(self, network: nn.Module) -> bool:
        """Whether it is such a transformer."""
        return isinstance(network, PRXTransformer2DModel)

    def sites(self, network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        """All blocks."""
        for name, module in network.named_modules():
            if isinstance(module, PRXBlock):
                yield name, module

    def shape(self, block: nn.Module) -> tuple[int, int]:
        """As the block's attention."""
        own = cast(PRXBlock, block)
        return int(own.hidden_size), int(own.num_heads)

    def grounded(self, block: nn.Module) -> Sequence[tuple[nn.Module, type[nn.Module]]]:
        """The block itself."""
        return [(block, GroundedPRXBlock)]

    def check_stock(self, name: str, block: nn.Module) -> None:
        """Refuse blocks that something has patched."""
        kind = type(block)
        if kind is not PRXBlock:
            raise ModelError(
                f"unet: {name} ({kind.__name__} of {kind.__module__}) is not a stock block of PRX; if something has "
                "patched it, take that off"
            )

    def attach(self, network: nn.Module) -> Sequence[RemovableHandle]:
        """Send groundings on to the blocks."""
        return [network.register_forward_pre_hook(_Tell(), with_kwargs=True)]

    def map_sizes(self, network: Any, height: int, width: int) -> list[tuple[int, int]]:
        """One: that of the patches."""
        return [(height // network.patch_size, width // network.patch_size)]

    def context_dim(self, network: Any) -> int:
        """Of the text encoder."""
        return int(network.config.context_in_dim)

    def latent_channels(self, network: Any) -> int:
        """As many as it takes."""
        return int(network.config.in_channels)

    def latent_multiple(self, network: Any) -> int:
        """The side of a patch."""
        return int(network.config.patch_size)

    def native_side(self, network: Any) -> int:  # noqa: ARG002
        """512 pixels; the network's config does not say."""
        return NATIVE_SIDE

    def encode(
        self,
        pipeline: Any,
        texts: Sequence[str],
        *,
        captions: Sequence[str] = (),  # noqa: ARG002 - encoded as all texts
        clip_skip: int | None = None,
        device: torch.device | str | None = None,
    ) -> TextBank:
        """As diffusers' `PRXPipeline` does; what is beyond a text's end is left out, as its attention mask does.

        A caption's feature is the mean of its tokens' (the encoder has no pooled state).

        Raises:
            ModelError: a layer is to be skipped, or ftfy, which texts are cleaned with, is not installed.
        """
        if clip_skip:
            raise ModelError("clip_skip: PRX attends to the last layer of its text encoder; leave it out")
        distinct = list(dict.fromkeys(texts))
        read = pipeline.tokenizer(
            _cleaned(pipeline, distinct),
            padding="max_length",
            max_length=pipeline.tokenizer.model_max_length,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        device = device or pipeline._execution_device
        ids, mask = read["input_ids"].to(device), read["attention_mask"].bool().to(device)
        states = pipeline.text_encoder(input_ids=ids, attention_mask=mask)["last_hidden_state"]
        kept = [own[there] for own, there in zip(states, mask, strict=True)]
        return TextBank(
            nn.utils.rnn.pad_sequence(kept, batch_first=True),
            tuple(map(len, kept)),
            torch.stack([own.float().mean(0).to(own) for own in kept]),
            {text: row for row, text in enumerate(distinct)},
        )

    def text_inputs(
        self,
        context: Tensor,  # noqa: ARG002
        counts: Tensor | None,
        pooled: Tensor | None,  # noqa: ARG002
        size: tuple[int, int] | None,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Which texts are shorter than others."""
        return {"attention_mask": counts}

    def call(
        self,
        network: Any,
        sample: Tensor,
        timestep: Tensor,
        context: Tensor,
        grounding: Grounding,
        *,
        text_keys: Mapping[str, tuple[Tensor, Tensor]] | None = None,  # noqa: ARG002 - none are made
        attention: Mapping[str, Any] | None = None,
        inputs: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """By `attention_kwargs`, at a time from 0 to 1."""
        predicted: Tensor = network(
            hidden_states=sample.to(context.dtype),
            timestep=(timestep.float() / TRAINING_STEPS).reshape(-1).expand(len(sample)).to(sample.device),
            encoder_hidden_states=context,
            attention_kwargs={**(attention or {}), "grounding": grounding},
            return_dict=False,
            **(inputs or {}),
        )[0]
        return predicted


def _cleaned(pipeline: Any, texts: Sequence[str]) -> list[str]:
    """Texts as the network was trained on: `PRXPipeline` cleans them as DeepFloyd does."""
    from diffusers.pipelines.prx.pipeline_prx import TextPreprocessor  # it loads the text encoder's code

    clean = (getattr(pipeline, "text_preprocessor", None) or TextPreprocessor()).clean_text
    try:
        return [clean(text) for text in texts]
    except NameError as error:  # the module does without ftfy until a text is cleaned
        raise ModelError("prompt: PRX was trained on texts that ftfy cleans; pip install ftfy") from error
