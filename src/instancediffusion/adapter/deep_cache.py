"""Deep features of a UNet kept from one network call for the next ones (DeepCache, Ma et al. 2024, section 3.2).

What the inner blocks give changes little from step to step. So they are run in some calls only; in the others the outer
blocks, the first of the encoder and the last two of the decoder, run alone round the features that are kept. Adapter
layers belong to the blocks they sit in: those of inner blocks rest with them.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable
from functools import partial
from typing import Any

from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from instancediffusion.adapter.openvino import OpenVINOCall

_FIRST, _LAST = 1, 2  # residual blocks of the encoder's first block and the decoder's last one that are outer ones
_NOT_OURS = ("forward", "_hf_hook", "_old_forward", "_compiled_call_impl")  # what others bound to the whole module


def unfit(network: Any, core: Any) -> str:
    """Why deep features of a network cannot be reused; nothing if they can.

    Args:
        network: a UNet with what is round it.
        core: the UNet itself.
    """
    if not isinstance(core, UNet2DConditionModel):
        return f"{type(core).__name__} has no inner and outer blocks"
    if str(getattr(vars(core).get("forward"), "__module__", "")).startswith("DeepCache"):
        return "DeepCache is on it"
    if core is not network or (core._compiled_call_impl is not None and OpenVINOCall.of(core) is None):
        return "it is compiled, or something is round it"
    return ""


class _Kept(nn.Module):
    """Stands where the inner blocks were."""

    features: Tensor

    def forward(self, *_: Any, **__: Any) -> Tensor:
        """The features that are kept, whatever comes in; a copy, because FreeU works in place."""
        return self.features.clone()


class OuterBlocks:
    """The outer blocks of a UNet as a UNet of their own: the stock code runs on them, and all modules are shared.

    Args:
        unet: a UNet, grafted or not; nothing stays on it.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self._unet, self._kept = unet, _Kept()
        first, last = unet.down_blocks[0], unet.up_blocks[-1]
        self._whole_first = len(first.resnets) == _FIRST and getattr(first, "attentions", None) is not None
        self._view = _view(
            unet,
            down_blocks=nn.ModuleList([_part(first, slice(_FIRST), downsamplers=None)]),
            mid_block=self._kept,
            up_blocks=nn.ModuleList([_part(last, slice(-_LAST, None))]),
        )
        self._view.__dict__["num_upsamplers"] = 0

    def whole(self, unet: Any, *args: Any, **kwargs: Any) -> tuple[Any, Tensor]:
        """Call the UNet, or what is round it, as it is; returns what it returns, and the deep features."""
        found: list[Tensor] = []
        handle = self._listen(found)
        try:
            answer = unet(*args, **kwargs)
        finally:
            handle.remove()
        return answer, found[-1]

    def outer(self, features: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Call the outer blocks alone, round deep features; arguments as those of the UNet."""
        if kwargs.get("mid_block_additional_residual") is not None:  # a ControlNet's part in them is kept with them
            kwargs["mid_block_additional_residual"] = features.new_zeros(())
        added = kwargs.get("down_intrablock_additional_residuals")
        if added is not None:  # a T2I-Adapter's first map comes after the last of the first block's parts
            kwargs["down_intrablock_additional_residuals"] = list(added[:1]) if self._whole_first else None
        self._kept.features = features
        try:
            return self._view(*args, **kwargs)
        finally:
            del self._kept.features

    def _listen(self, found: list[Tensor]) -> RemovableHandle:
        """Take down what comes to the outer blocks of the decoder, before skip connections join it."""
        last = self._unet.up_blocks[-1]
        inner = len(last.resnets) - _LAST
        if inner == 0:

            def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                found.append((kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]).clone())

            return last.register_forward_pre_hook(before, with_kwargs=True)

        def after(_: nn.Module, __: Any, output: Any) -> None:
            found.append((output[0] if isinstance(output, tuple) else output).clone())

        parts: Any = last.resnets if getattr(last, "attentions", None) is None else last.attentions
        handle: RemovableHandle = parts[inner - 1].register_forward_hook(after)
        return handle


class DeepCache:
    """Calls of one UNet with the same batch: every so many-th is whole, the others are of the outer blocks.

    Args:
        blocks: of the UNet.
        interval: 1 or more; 1 = all calls are whole.
    """

    def __init__(self, blocks: OuterBlocks, interval: int) -> None:
        self._blocks, self._interval = blocks, interval
        self._features: Tensor | None = None
        self._since = 0
        self._kind: Hashable = None

    def __call__(self, unet: Any, kind: Hashable, *args: Any, **kwargs: Any) -> Any:
        """Call the UNet; features of one kind of call (with instances, with their captions) serve no other."""
        compiled = OpenVINOCall.of(unet)
        if self._features is not None and self._since < self._interval and kind == self._kind:
            self._since += 1
            outer = self._blocks.outer if compiled is None else partial(compiled.run, "outer", self._blocks.outer)
            return outer(self._features, *args, **kwargs)
        whole = partial(self._blocks.whole, unet)
        if compiled is not None:
            whole = partial(compiled.run, "deep features", partial(self._blocks.whole, unet._call_impl))
        answer, self._features = whole(*args, **kwargs)
        self._since, self._kind = 1, kind
        return answer


def _view(module: Any, **parts: nn.Module | None) -> Any:
    """A module of the same class with the same content, but for some parts."""
    view = object.__new__(type(module))
    view.__dict__ = {name: value for name, value in vars(module).items() if name not in _NOT_OURS}
    view.__dict__["_modules"] = copy.copy(module._modules) | parts
    return view


def _part(block: Any, which: slice, **parts: nn.Module | None) -> Any:
    """Some of the residual blocks of a block, each with what follows it."""
    lists = {name: getattr(block, name, None) for name in ("resnets", "attentions")}
    chosen = {name: nn.ModuleList(list(found)[which]) for name, found in lists.items() if found is not None}
    return _view(block, **chosen, **parts)
