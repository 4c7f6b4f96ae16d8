"""A base model as one object: where gated layers and ScaleU attach, how text is encoded, how the network is called."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from instancediffusion.errors import ModelError

if TYPE_CHECKING:
    from instancediffusion.adapter.grounding import Grounding
    from instancediffusion.conditioning.text import TextBank

_WRAPPED = ("_orig_mod", "base_model", "model", "module")


class TextKeys(Protocol):
    """Keys and values of the texts of a run, computed once."""

    def of(self, rows: Sequence[int], length: int) -> Mapping[str, tuple[Tensor, Tensor]]:
        """By layer, keys and values (R, `length`, C) of the texts `rows`."""
        ...


class Backbone(ABC):
    """A text-to-image network that an adapter goes on. It has no state: all of it is in the network and the pipeline.

    B images, C channels of a block, L visual tokens.

    Attributes:
        name: in the registry.
        title: its display name.
        network: the class of the network, as `model_index.json` writes it.
        text_encoders: the classes of text encoders, in the same way.
        stock: by the class that is put on a part of the network, the class that `remove` puts back.
        upcasts_vae: the autoencoder computes in float32 whatever its type, as half precision overflows.
        flow: it was trained by flow matching, and predicts the velocity noise - x0.
        per_map: its attention layers take, among their arguments, what acts at the visual tokens of a map:
            `RegionalCaptions` as `captions`, and a `TokenMerging` as `merging`.
        in_pipeline: `InstanceDiffusionPipeline` samples with it.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    network: ClassVar[str]
    text_encoders: ClassVar[tuple[str, ...]]
    stock: ClassVar[Mapping[type[nn.Module], type[nn.Module]]]
    upcasts_vae: ClassVar[bool] = False
    flow: ClassVar[bool] = False
    per_map: ClassVar[bool] = False
    in_pipeline: ClassVar[bool] = True

    @abstractmethod
    def fits(self, network: nn.Module) -> bool:
        """Whether a network, without what may be around it, is one of this base model."""

    # Where gated layers and ScaleU attach.

    @abstractmethod
    def sites(self, network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        """The blocks that get a gated layer each, with their parameter paths."""

    @abstractmethod
    def shape(self, block: nn.Module) -> tuple[int, int]:
        """(channels, heads) of the gated layer of a block."""

    @abstractmethod
    def grounded(self, block: nn.Module) -> Sequence[tuple[nn.Module, type[nn.Module]]]:
        """The parts of a block that run its gated layer, each with the class that is put on it; the block first."""

    def check_stock(self, name: str, block: nn.Module) -> None:  # noqa: B027
        """Raise `ModelError` if a block is not as the library made it."""

    def attach(self, network: nn.Module) -> Sequence[RemovableHandle]:  # noqa: ARG002
        """Hand the blocks what else they need of a grounding; the handles undo hooks, `stock` undoes classes."""
        return ()

    def decoder_steps(self, network: nn.Module) -> list[tuple[nn.Module, int]]:  # noqa: ARG002
        """The modules whose input ScaleU rescales, features before skips, each with the channels of the feature.

        None for networks without skip connections.
        """
        return []

    @abstractmethod
    def map_sizes(self, network: nn.Module, height: int, width: int) -> list[tuple[int, int]]:
        """(height, width) in visual tokens of the feature maps that have gated layers, for latents of that size."""

    # What it takes; the network may have something around it that has its `config`.

    @abstractmethod
    def context_dim(self, network: Any) -> int:
        """Width of the texts it attends to."""

    def pooled_dim(self, network: Any) -> int | None:  # noqa: ARG002
        """Width of the projected text that it takes beside the time step; None = it takes none."""
        return None

    @abstractmethod
    def latent_channels(self, network: Any) -> int:
        """Channels of the latents that it denoises."""

    @abstractmethod
    def latent_multiple(self, network: Any) -> int:
        """What the sides of latents are multiples of."""

    def native_side(self, network: Any) -> int:
        """Side, in latent pixels, of the square pictures it was trained on."""
        side = network.config.sample_size
        return int(side if isinstance(side, int) else min(side))

    def misfits(self, network: Any) -> Iterator[str]:  # noqa: ARG002
        """Say what a network takes that none of this base model does, a line each."""
        yield from ()

    def text_problems(self, network: Any, encoders: Sequence[Any]) -> Iterator[str]:  # noqa: ARG002
        """Say what does not fit of a network and its two text encoders (None where there is none), a line each."""
        yield from ()

    # How text is encoded.

    @abstractmethod
    def encode(
        self,
        pipeline: Any,
        texts: Sequence[str],
        *,
        captions: Sequence[str] = (),
        clip_skip: int | None = None,
        device: torch.device | str | None = None,
    ) -> TextBank:
        """Encode prompts and captions, each distinct one once.

        Args:
            pipeline: gives tokenizers and text encoders by the names they have in diffusers.
            texts: prompts, negative prompts and captions.
            captions: those of them that are captions of instances.
            clip_skip: layers of the text encoder to leave out of contexts, from the last on.
            device: to compute on; None means that of the pipeline.
        """

    # How it is called.

    def text_keys(self, network: nn.Module, texts: Tensor) -> TextKeys | None:  # noqa: ARG002
        """Keys and values of the texts (K, S, D) of a run, for networks in which they depend on no step."""
        return None

    @abstractmethod
    def text_inputs(
        self, context: Tensor, counts: Tensor | None, pooled: Tensor | None, size: tuple[int, int] | None
    ) -> dict[str, Any]:
        """Arguments of the network that depend on texts and picture alone.

        Args:
            context: (B, S, D) texts.
            counts: (B, S) bool, what of each counts; None = all.
            pooled: (B, P) projected texts.
            size: (height, width) of the picture in pixels.
        """

    @abstractmethod
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
        """Predict what the network was trained to predict.

        Args:
            network: with an adapter grafted on; what may be around it is kept.
            sample: (B, C, h, w) noisy latents.
            timestep: 0-dim, or (B,): training steps, 0 to 1000.
            context: (B, S, D) texts.
            grounding: of the B images.
            text_keys: what `text_keys` made, of these texts.
            attention: further arguments of attention layers.
            inputs: what `text_inputs` made, and further arguments of the network.

        Returns:
            (B, C, h, w).
        """


BACKBONES: dict[str, Backbone] = {}
"""The base models by name. The last one is asked first whether a network is its own, so new ones go before ours."""


def register_backbone(backbone: Backbone) -> Backbone:
    """Add a base model of your own, or replace one: adapters and pipelines then take its network."""
    BACKBONES[backbone.name] = backbone
    return backbone


def core_network(network: Any) -> Any:
    """The network inside of what `torch.compile`, PEFT or a data-parallel trainer put around it."""
    while isinstance(network, nn.Module) and _own(network) is None:
        inner = next((name for name in _WRAPPED if name in network._modules), None)
        if inner is None:
            break
        network = network._modules[inner]
    return network


def find_backbone(network: Any) -> Backbone | None:
    """The base model of a network, whatever is around it; None where none is known."""
    return _own(core_network(network))


def backbone_of(network: Any) -> Backbone:
    """The base model of a network, whatever is around it.

    Raises:
        ModelError: none is known.
    """
    found = find_backbone(network)
    if found is None:
        titles = ", ".join(dict.fromkeys(backbone.title for backbone in BACKBONES.values()))
        raise ModelError(
            f"unet: a {type(core_network(network)).__name__} is the network of no base model that is known "
            f"({titles}); register_backbone adds one"
        )
    return found


def _own(network: Any) -> Backbone | None:
    if not isinstance(network, nn.Module):
        return None
    return next((backbone for backbone in reversed(BACKBONES.values()) if backbone.fits(network)), None)
