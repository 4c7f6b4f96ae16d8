"""Grafting onto a stock network, without copying its code and without touching its parameters.

Where gated layers and ScaleU go is said by the base model (`adapter.backbones`): parts of blocks get a subclass in
place of their class, and ScaleU is a forward pre-hook on the decoder's steps. Nothing else changes, so parameter names,
processors and LoRA work as before, and taking the graft off restores the classes.

All that is put on a network can be copied and pickled with it, and a copy has nothing in common with the original: the
copy of a whole pipeline is grafted with the copy of its adapter, the copy of only a UNet with a copy of the ScaleU.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from instancediffusion.adapter.backbones import Backbone, backbone_of, core_network, unet
from instancediffusion.adapter.gated_attention import GatedSelfAttention
from instancediffusion.adapter.scaleu import ScaleU
from instancediffusion.errors import ModelError

_RECORD = "_instance_graft"


class GraftOwner:
    """The owner of the graft on a UNet: it stands for one adapter, here and in copies of both.

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

    def __init__(
        self, unet: nn.Module, owner: GraftOwner, handles: Sequence[RemovableHandle], backbone: Backbone
    ) -> None:
        self.unet, self.owner, self.handles, self.backbone = unet, owner, list(handles), backbone
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
            if type(module) in self.backbone.stock:
                module.__class__ = self.backbone.stock[type(module)]
                for ours in ("grounding_layer", "_kept"):
                    module.__dict__.pop(ours, None)
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


def graft_on(network: Any) -> Graft | None:
    """The graft that a network carries, if any."""
    found: Graft | None = getattr(core_network(network), "__dict__", {}).get(_RECORD)
    return found


def graft(
    network: nn.Module,
    layers: Mapping[str, GatedSelfAttention],
    scaleu: Sequence[ScaleU],
    owner: GraftOwner,
) -> None:
    """Graft gated self-attention and ScaleU on a network.

    Args:
        network: a stock network of a base model that is known.
        layers: by path of the block, the gated layer that belongs to it.
        scaleu: for each decoder step; empty for none.
        owner: of the adapter.

    Raises:
        ModelError: the network is not stock, carries a graft already, or has other blocks than the adapter.
    """
    backbone = backbone_of(network)
    if graft_on(network) is not None:
        raise ModelError("unet: an adapter is grafted on it already; call its remove() first")
    blocks = dict(backbone.sites(network))
    steps = backbone.decoder_steps(network)
    _check(backbone, blocks, layers, [channels for _, channels in steps], scaleu)
    names: list[str] = []
    for name, block in blocks.items():
        parts = backbone.grounded(block)
        names.append(parts[0][1].__name__)
        for part, kind in parts:
            part.__class__ = kind
        block.grounding_layer = name  # type: ignore[assignment]
    handles = [*backbone.attach(network)]
    for (module, _), own in zip(steps, scaleu, strict=False):
        handles.append(module.register_forward_pre_hook(_Rescale(own)))
    record = Graft(network, owner, handles, backbone)
    # `compile_repeated_blocks` finds blocks by the names of their classes.
    stock = getattr(network, "_repeated_blocks", None) or ()
    network._repeated_blocks = [*stock, *dict.fromkeys(names)]  # type: ignore[assignment]
    setattr(network, _RECORD, record)


def check_grafted(network: nn.Module, layers: Mapping[str, GatedSelfAttention]) -> None:
    """Raise `ModelError` if something has taken the place of a part of the graft since it was put on."""
    carried = graft_on(network)
    backbone = backbone_of(network) if carried is None else carried.backbone
    blocks = dict(backbone.sites(core_network(network)))
    if set(blocks) != set(layers):
        odd = sorted(set(blocks) ^ set(layers))
        raise ModelError(f"unet: its transformer blocks have changed since the adapter was grafted on ({odd[0]})")
    for name, block in blocks.items():
        for part, wanted in backbone.grounded(block):
            found = type(part)
            if found is not wanted:
                raise ModelError(
                    f"unet: {found.__name__} of {found.__module__} stands in the place of {name}, and would leave out "
                    "the locations of instances; take that patch off (tomesd.remove_patch(pipe.unet), for one)"
                )


def _check(
    backbone: Backbone,
    blocks: Mapping[str, nn.Module],
    layers: Mapping[str, GatedSelfAttention],
    steps: Sequence[int],
    scaleu: Sequence[ScaleU],
) -> None:
    """Refuse a network that the adapter does not fit."""
    if set(blocks) != set(layers):
        odd = sorted(set(blocks) ^ set(layers))
        raise ModelError(f"unet: its transformer blocks are not those of the adapter (first difference: {odd[0]})")
    widths = [len(module.b) for module in scaleu]
    if scaleu and widths != list(steps):
        raise ModelError(f"unet: its decoder steps have {list(steps)} channels, the adapter's ScaleU {widths}")
    for name, block in blocks.items():
        backbone.check_stock(name, block)
        shape, fits = backbone.shape(block), (layers[name].channels, layers[name].heads)
        if shape != fits:
            raise ModelError(f"unet: {name} has (channels, heads) {shape}, the adapter's layer {fits}")


_MOVED = {
    "core_unet": core_network,
    **{
        name: getattr(unet, name)
        for name in (
            "GroundedTransformer",
            "GroundedBlock",
            "GroundedSelfAttention",
            "UngroundedAttention",
            "PromptKeys",
            "is_plain",
            "transformer_blocks",
            "map_sizes",
            "decoder_steps",
        )
    },
}


def __getattr__(name: str) -> Any:
    """Names of before."""
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    new = getattr(_MOVED[name], "__module__", "")
    warnings.warn(f"{__name__}.{name} is {new}.{_MOVED[name].__name__} now", DeprecationWarning, stacklevel=2)
    return _MOVED[name]
