"""A grafted network as a denoiser: picks the context and grounding of each branch from banks computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from instancediffusion.adapter import Grounding
from instancediffusion.adapter.backbones import backbone_of, core_network
from instancediffusion.adapter.backbones.backbone import TextKeys
from instancediffusion.adapter.deep_cache import DeepCache, OuterBlocks
from instancediffusion.errors import ModelError
from instancediffusion.sampling import Branch, Prediction

Extras = Callable[[Sequence[Branch]], Mapping[str, Any]]
"""For the branches of a call, further keyword arguments of the UNet, such as `added_cond_kwargs`."""

StepInputs = Callable[[Tensor, Tensor, Tensor, Sequence[int], Mapping[str, Any]], Mapping[str, Any]]
"""From sample, timestep, texts, their lengths and the other arguments of the UNet to further ones."""


class Contexts:
    """Text contexts of different lengths, of which calls pick rows.

    Args:
        values: (K, L, D); what is beyond a row's length is not looked at.
        lengths: of each row.
        projected: (K, P) the projected texts of rows, for UNets that take them beside the time step (XL).
    """

    def __init__(self, values: Tensor, lengths: Sequence[int], projected: Tensor | None = None) -> None:
        self.values, self.lengths, self.projected = values, list(lengths), projected

    def pick(self, rows: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Rows as (R, L, D), and (R, L) bool of what counts in each; None if all does."""
        lengths = [self.lengths[row] for row in rows]
        longest = max(lengths)
        picked = self.values[torch.tensor(rows, device=self.values.device), :longest]
        if min(lengths) == longest:
            return picked, None
        places = torch.arange(longest, device=self.values.device)
        return picked, places < torch.tensor(lengths, device=self.values.device)[:, None]

    def add(self, values: Tensor, like: Sequence[int]) -> list[int]:
        """Add contexts (R, L, D), with the projected texts of the rows `like`; returns their rows."""
        if self.projected is not None:
            self.projected = torch.cat([self.projected, self.projected[list(like)]])
        first, length = len(self.lengths), values.shape[1]
        longest = max(length, self.values.shape[1])
        self.values = torch.cat([_widened(self.values, longest), _widened(values.to(self.values), longest)])
        self.lengths += [length] * len(values)
        return list(range(first, len(self.lengths)))


def _widened(values: Tensor, length: int) -> Tensor:
    return functional.pad(values, (0, 0, 0, length - values.shape[1]))


def check_ran(grounding: Grounding) -> None:
    """Raise `ModelError` unless every gated layer ran in the call that was handed `grounding.noting()`."""
    missing = set(grounding.layers) - set(grounding.ran or ())
    if missing:
        raise ModelError(
            f"unet: {len(missing)} of {len(grounding.layers)} gated layers did not run (the first: {min(missing)}), so "
            "the places of instances would be ignored; something has patched the UNet's blocks, take that off"
        )


class NetworkDenoiser:
    """The stock network of a base model with an adapter grafted on, bound to the scenes of one run.

    Args:
        network: a UNet, or another that is known (see `adapter.backbones`); nothing is stored on it.
        contexts: text contexts; a tensor (K, L, D) if all are of one length.
        groundings: groundings of one image each. They are joined only for the rows of a call, because joining pads all
            to the widest.
        rows: for a branch, its row of `contexts` and its place in `groundings`.
        attention: further `cross_attention_kwargs`, such as the scale of LoRA layers.
        extras: further arguments of the network for some branches; its `cross_attention_kwargs` join `attention`.
        size: (height, width) of the pictures in pixels, for networks that take it (XL).
        control: for the branches of a call, what computes further arguments at each step (see `pipeline.control`).
        cache_interval: of the calls for the same branches, every so many-th runs the inner blocks of the UNet; 1 = all.
    """

    def __init__(
        self,
        network: Any,
        contexts: Contexts | Tensor,
        groundings: Sequence[Grounding],
        rows: Callable[[Branch], tuple[int, int]],
        attention: Mapping[str, Any] | None = None,
        extras: Extras | None = None,
        size: tuple[int, int] | None = None,
        control: Callable[[Sequence[Branch]], StepInputs] | None = None,
        cache_interval: int = 1,
    ) -> None:
        self._network, self._core, self._backbone = network, core_network(network), backbone_of(network)
        if isinstance(contexts, Tensor):
            contexts = Contexts(contexts, [contexts.shape[1]] * len(contexts))
        self._contexts = contexts
        self._groundings = groundings
        self._rows = rows
        self._attention = dict(attention or {})
        self._extras = extras
        self._size = size
        self._control = control
        self._cache_interval = cache_interval
        self._outer = OuterBlocks(self._core) if cache_interval > 1 else None
        self._keys: tuple[Tensor, TextKeys | None] | None = None

    def _text_keys(self) -> TextKeys | None:
        """The keys and values of the texts; computed anew when texts were added."""
        texts = self._contexts.values
        if self._keys is None or self._keys[0] is not texts:
            self._keys = texts, self._backbone.text_keys(self._core, texts)
        return self._keys[1]

    def bind(self, branches: Sequence[Branch]) -> Prediction:
        """Gather the conditioning of `branches`; see `Denoiser`."""
        picked = [self._rows(branch) for branch in branches]
        context, counts = self._contexts.pick([row for row, _ in picked])
        places = list(dict.fromkeys(place for _, place in picked))  # what several rows are told is kept once
        grounding = Grounding.cat([self._groundings[place] for place in places])
        told_rows = [places.index(place) for _, place in picked]
        extras = {} if self._extras is None else dict(self._extras(branches))
        projected = self._contexts.projected
        pooled = None if projected is None else projected[[row for row, _ in picked]]
        for name, value in self._backbone.text_inputs(context, counts, pooled, self._size).items():
            known = extras.get(name)
            extras[name] = {**known, **value} if isinstance(known, Mapping) else value
        attention = {**self._attention, **extras.pop("cross_attention_kwargs", {})}
        lengths = [self._contexts.lengths[row] for row, _ in picked]
        control = None if self._control is None else self._control(branches)
        keys = self._text_keys()
        cache = None if self._outer is None else DeepCache(self._outer, self._cache_interval)
        checked = False

        def predict(sample: Tensor, timestep: Tensor, grounding_scale: float) -> Tensor:
            nonlocal checked
            inputs = {} if control is None else control(sample, timestep, context, lengths, extras)
            if grounding_scale:
                grounding.prepared(self._backbone.map_sizes(self._core, *sample.shape[-2:]))
            told = grounding.spread(told_rows).scaled(grounding_scale)
            if not checked and grounding_scale:
                told = told.noting()
            network = self._network if cache is None else partial(cache, self._network, bool(grounding_scale))
            predicted = self._backbone.call(
                network,
                sample,
                timestep,
                context,
                told,
                text_keys=None if keys is None else keys.of([row for row, _ in picked], context.shape[1]),
                attention=attention,
                inputs={**extras, **inputs},
            )
            if told.ran is not None:
                check_ran(told)
                checked = True
            return predicted

        return predict
