"""Captions read where their instances are: cross-attention by regions, in one network call for all instances.

A prompt's cross-attention is the same everywhere. Here a visual token p attends to the caption of each instance that is
visible there, too, each under a softmax of its own, and its result is

    A(p) = w_0(p) Attn(q_p, prompt) + sum_i w_i(p) Attn(q_p, caption_i),  w_0 + sum_i w_i = 1.

So where one instance covers a token its caption stands in the place of the prompt, as in a branch of its own; where
none does, nothing changes. Only the tokens at which an instance has a weight are computed again, and nothing but their
cross-attention is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from instancediffusion.errors import ModelError


@dataclass(frozen=True, eq=False)
class MapRegions:
    """The visual tokens of one feature map that read captions: P pairs of image and caption, M tokens of each at most.

    Attributes:
        length: L, visual tokens of the map.
        tokens: (P, M) int64 in the batch laid out one image after the other; those of no weight fill up.
        weights: (P, M, 1) w_i of these, 0..1.
        rest: (B, L, 1) w_0, the weight of the prompt.
    """

    length: int
    tokens: Tensor
    weights: Tensor
    rest: Tensor


@dataclass(frozen=True, eq=False)
class RegionalCaptions:
    """The captions of a batch: a value, handed to a UNet as `cross_attention_kwargs={"captions": captions}`.

    Attributes:
        texts: (P, S, D) hidden states of each image's captions, image by image.
        images: (P,) int64, the batch element of each.
        weights: from the (height, width) of a map, for each batch element, (n, height, width): w_i of its n captions.
        mask: (P, 1, S) what is added to the logits; None = nothing.
        keys_values: by layer, keys and values (P, S, C) of the texts, where they are known.
        maps: by size, what `on_maps` was asked for.
        here: that of the map of the current layer; handed down by its transformer.
    """

    texts: Tensor
    images: Tensor
    weights: Callable[[tuple[int, int]], Sequence[Tensor]]
    mask: Tensor | None = None
    keys_values: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    maps: Mapping[tuple[int, int], MapRegions] = field(default_factory=dict)
    here: MapRegions | None = None

    def on_maps(self, sizes: Iterable[tuple[int, int]]) -> RegionalCaptions:
        """The same captions with the tokens that read them found on maps of these (height, width)."""
        return replace(self, maps={size: self._of_map(size) for size in sizes})

    def on_map(self, height: int, width: int) -> RegionalCaptions:
        """The same captions for a map that a network is about to attend over."""
        size = (height, width)
        return replace(self, here=self.maps[size] if size in self.maps else self._of_map(size))

    def blend(
        self, name: str, hidden_states: Tensor, attended: Tensor, texts: Any, attend: Callable[..., Tensor]
    ) -> Tensor:
        """Put what captions give into what the prompt gave.

        Args:
            name: of the layer.
            hidden_states: (B, L, C) the visual tokens, as the layer sees them.
            attended: (B, L, C) what the layer makes of them with the prompt.
            texts: what the layer was given to attend to; with IP-Adapters a pair of that and their features.
            attend: the layer's attention of tokens (P, M, C) to texts, with a mask and with keys and values.

        Raises:
            ModelError: the layer does not see the tokens of its map.
        """
        found = self.here
        if found is None or found.length != hidden_states.shape[1]:
            raise ModelError(
                f"unet: {name} sees {hidden_states.shape[1]} visual tokens of a map of "
                f"{found.length if found else 'unknown size'}, as token merging makes it; captions are read where "
                "their instances are: take that patch off, or choose another mis_merge"
            )
        own: Any = self.texts
        if isinstance(texts, tuple):
            own = (self.texts, [features[self.images] for features in texts[1]])
        flat = hidden_states.flatten(0, 1)
        seen = attend(flat[found.tokens], own, self.mask, self.keys_values.get(name))
        weighted = (found.weights.to(seen.dtype) * seen).flatten(0, 1)
        kept = (found.rest.to(attended.dtype) * attended).flatten(0, 1)
        return kept.index_add(0, found.tokens.flatten(), weighted.to(kept.dtype)).view_as(attended)

    def _of_map(self, size: tuple[int, int]) -> MapRegions:
        by_image = [own.flatten(1) for own in self.weights(size)]
        length, device = size[0] * size[1], self.texts.device
        rest = torch.stack([(1 - own.sum(0)).clamp(min=0) for own in by_image])[..., None]
        weights = torch.cat(by_image)
        most = max(1, int((weights > 0).sum(1).max()))
        # The heaviest tokens of each: those of no weight come last, and fill up.
        weights, tokens = weights.topk(most, dim=1)
        tokens = tokens.to(device) + length * self.images[:, None]
        return MapRegions(length, tokens, weights[..., None].to(device), rest.to(device))
