"""A grafted network as denoisers: picks the context and grounding of each branch from banks computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from instancediffusion.adapter import Grounding
from instancediffusion.adapter.backbones import backbone_of, core_network
from instancediffusion.adapter.backbones.backbone import TextKeys
from instancediffusion.adapter.deep_cache import DeepCache, OuterBlocks
from instancediffusion.adapter.regional import RegionalCaptions
from instancediffusion.adapter.token_merging import TokenMerging
from instancediffusion.conditioning import LocationTensors
from instancediffusion.errors import ModelError
from instancediffusion.sampling import Branch

Extras = Callable[[Sequence[Branch]], Mapping[str, Any]]
"""For the branches of a call, further keyword arguments of the UNet, such as `added_cond_kwargs`."""

Captioned = tuple[Sequence[int], Callable[[tuple[int, int]], Tensor]]
"""Rows of n captions, and from a map's (height, width) their weights (n, height, width); see `adapter.regional`."""

StepInputs = Callable[[Tensor, Tensor, int, Tensor, Sequence[int], Mapping[str, Any]], Mapping[str, Any]]
"""From sample, timestep, step, texts, their lengths and the other arguments of the UNet to further ones."""


class Contexts:
    """Text contexts of different lengths, one in each row, of which a network call picks some.

    Args:
        values: (K, L, D); what is beyond a row's length is not attended to.
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
        positions = torch.arange(longest, device=self.values.device)
        return picked, positions < torch.tensor(lengths, device=self.values.device)[:, None]

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
    """Raise `ModelError` unless every gated layer ran in the call that was handed a grounding that notes them."""
    missing = set(grounding.layers) - set(grounding.ran or ())
    if missing:
        raise ModelError(
            f"unet: {len(missing)} of {len(grounding.layers)} gated layers did not run (the first: {min(missing)}), so "
            "the locations of instances would be ignored; something has patched the UNet's blocks, take that off"
        )


class NetworkDenoiser:
    """The stock network of a base model with an adapter grafted on, and the conditioning of the scenes of one run.

    Args:
        network: a UNet, or another of those supported (see `adapter.backbones`); nothing is stored on it.
        contexts: text contexts; a tensor (K, L, D) if all are of one length.
        groundings: groundings of one image each. They are joined only for the batch of a call, because joining pads
            all to the widest.
        rows: for a branch, its row of `contexts` and its index in `groundings`.
        grounding_scales: of each step; none = 1 in all.
        attention: further `cross_attention_kwargs`, such as the scale of LoRA layers.
        extras: further arguments of the network for some branches; its `cross_attention_kwargs` join `attention`.
        size: (height, width) of the pictures in pixels, for networks that take it (XL).
        control: for the branches of a call, what computes further arguments at each step (see `pipeline.control`).
        cache_interval: of the calls for the same branches, every so many-th runs the inner blocks of the UNet; 1 = all.
        canvas: (height, width) of the latents of whole pictures.
        captions: for a branch, the rows in `contexts` of captions that are read where their instances are, and where
            that is on a map; None = those of no branch.
        caption_steps: number of steps, from the start, in which they are.
        token_merging: fraction of the visual tokens of large maps that are merged for attention; 0 = none.

    Attributes:
        rows_done: NFE so far, in batch elements; one on a part of the canvas counts as that fraction of it.
    """

    def __init__(
        self,
        network: Any,
        contexts: Contexts | Tensor,
        groundings: Sequence[Grounding],
        rows: Callable[[Branch], tuple[int, int]],
        *,
        grounding_scales: Sequence[float] = (),
        attention: Mapping[str, Any] | None = None,
        extras: Extras | None = None,
        size: tuple[int, int] | None = None,
        control: Callable[[Sequence[Branch]], StepInputs] | None = None,
        cache_interval: int = 1,
        canvas: tuple[int, int] | None = None,
        captions: Callable[[Branch], Captioned] | None = None,
        caption_steps: int = 0,
        token_merging: float = 0.0,
    ) -> None:
        self.network, self.core, self.backbone = network, core_network(network), backbone_of(network)
        if isinstance(contexts, Tensor):
            contexts = Contexts(contexts, [contexts.shape[1]] * len(contexts))
        self.contexts, self.groundings, self.rows = contexts, groundings, rows
        self.grounding_scales, self.attention, self.extras = grounding_scales, dict(attention or {}), extras
        self.size, self.control, self.cache_interval = size, control, cache_interval
        self.outer = OuterBlocks(self.core) if cache_interval > 1 else None
        self.captions, self.caption_steps, self.token_merging = captions, caption_steps, token_merging
        self.rows_done = 0.0
        self._canvas = canvas
        self._keys: tuple[Tensor, TextKeys | None] | None = None

    @property
    def text_keys(self) -> TextKeys | None:
        """The keys and values of the texts; computed anew when texts were added."""
        texts = self.contexts.values
        if self._keys is None or self._keys[0] is not texts:
            self._keys = texts, self.backbone.text_keys(self.core, texts)
        return self._keys[1]

    def bind(self, branches: Sequence[Branch]) -> BoundRows:
        """Gather the conditioning of `branches`; see `sampling.Network`."""
        return BoundRows(self, branches)

    def count(self, sample: Tensor) -> None:
        """Count the batch elements of a call."""
        height, width = self._canvas or sample.shape[-2:]
        self.rows_done += len(sample) * sample.shape[-2] * sample.shape[-1] / (height * width)


class BoundRows:
    """A network with the conditioning of a batch: a `sampling.Denoiser`. It is gathered anew when texts were added.

    Args:
        denoiser: the network, and the conditioning of the run.
        branches: the batch elements.
    """

    def __init__(self, denoiser: NetworkDenoiser, branches: Sequence[Branch]) -> None:
        self._denoiser, self._branches, self._checked = denoiser, branches, False
        self._gather()

    def _gather(self) -> None:
        denoiser, branches = self._denoiser, self._branches
        self._texts = denoiser.contexts.values
        picked = [denoiser.rows(branch) for branch in branches]
        self._text_rows = [row for row, _ in picked]
        self._context, counts = denoiser.contexts.pick(self._text_rows)
        self._lengths = [denoiser.contexts.lengths[row] for row in self._text_rows]
        # A grounding of several batch elements is kept once.
        distinct = list(dict.fromkeys(index for _, index in picked))
        self._grounding = Grounding.cat([denoiser.groundings[index] for index in distinct])
        self._grounding_rows = [distinct.index(index) for _, index in picked]
        extras = {} if denoiser.extras is None else dict(denoiser.extras(branches))
        projected = denoiser.contexts.projected
        pooled = None if projected is None else projected[self._text_rows]
        for name, value in denoiser.backbone.text_inputs(self._context, counts, pooled, denoiser.size).items():
            present = extras.get(name)
            extras[name] = {**present, **value} if isinstance(present, Mapping) else value
        self._attention = {**denoiser.attention, **extras.pop("cross_attention_kwargs", {})}
        self._extras = extras
        self._control = None if denoiser.control is None else denoiser.control(branches)
        self._cache = None if denoiser.outer is None else DeepCache(denoiser.outer, denoiser.cache_interval)
        self._captions, self._merging = self._regional(), self._merged()

    def _merged(self) -> TokenMerging | None:
        """Whose borders no merged token crosses: those of the instances of the conditional branch, in both branches."""
        denoiser = self._denoiser
        if not denoiser.token_merging:
            return None
        rows = [denoiser.rows(replace(branch, conditional=True, negative=0))[1] for branch in self._branches]
        locations = LocationTensors.cat([denoiser.groundings[row].locations for row in rows])
        return TokenMerging(denoiser.token_merging, locations)

    def _regional(self) -> RegionalCaptions | None:
        """The captions that are read in regions; None if there are none."""
        denoiser = self._denoiser
        if denoiser.captions is None:
            return None
        given = [denoiser.captions(branch) for branch in self._branches]
        rows = [row for own, _ in given for row in own]
        if not rows:
            return None
        texts, counts = denoiser.contexts.pick(rows)
        keys = denoiser.text_keys
        return RegionalCaptions(
            texts,
            torch.tensor([image for image, (own, _) in enumerate(given) for _ in own], device=texts.device),
            lambda size: [weights(size) for _, weights in given],
            None if counts is None else ((1 - counts.to(texts.dtype)) * -10000.0)[:, None],  # as a UNet makes it
            {} if keys is None else keys.of(rows, texts.shape[1]),
        )

    def __call__(self, sample: Tensor, timestep: Tensor, step: int) -> Tensor:
        """Predict for the batch; see `sampling.Denoiser`."""
        denoiser, backbone = self._denoiser, self._denoiser.backbone
        if denoiser.contexts.values is not self._texts:
            self._gather()
        context, scale = self._context, denoiser.grounding_scales[step] if denoiser.grounding_scales else 1.0
        sizes = partial(backbone.map_sizes, denoiser.core, *sample.shape[-2:])
        if scale and not self._grounding.maps:
            self._grounding = self._grounding.on_maps(sizes())
        handed = dict(self._attention)
        if self._captions is not None and step < denoiser.caption_steps:
            if not self._captions.maps:
                self._captions = self._captions.on_maps(sizes())
            handed["captions"] = self._captions
        if self._merging is not None:
            if not self._merging.maps:
                self._merging = self._merging.on_maps(sizes())
            handed["merging"] = self._merging
        grounding = self._grounding.select(self._grounding_rows)
        grounding = replace(grounding, scale=scale, ran=None if self._checked or not scale else [])
        inputs = self._extras
        if self._control is not None:
            inputs = {**inputs, **self._control(sample, timestep, step, context, self._lengths, inputs)}
        keys, cache = denoiser.text_keys, self._cache
        predicted = backbone.call(
            denoiser.network
            if cache is None
            else partial(cache, denoiser.network, (bool(scale), "captions" in handed)),
            sample,
            timestep,
            context,
            grounding,
            text_keys=None if keys is None else keys.of(self._text_rows, context.shape[1]),
            attention=handed,
            inputs=inputs,
        )
        if grounding.ran is not None:
            check_ran(grounding)
            self._checked = True
        denoiser.count(sample)
        return predicted
