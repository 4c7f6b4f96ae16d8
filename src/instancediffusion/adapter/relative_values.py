"""Box-relative values: an instance says something else to each visual token (ours; not in the paper).

In the published layer (paper, section 3.2) the value of a grounding token is the same wherever it is attended from.
Here the value that visual token p gets from the tokens of instance i is v_i + W z_i(p), and its logit there gets
w_h . z_i(p), with z_i(p) = f(place of p as seen from i) * g(caption of i), elementwise. W and w start at zero, so
weights trained without them behave as before; they act inside the attention and under its gate: without attention to an
instance's tokens, or with the gate closed, nothing of them is left.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instancediffusion.conditioning import LocationTensors
from instancediffusion.conditioning.relative import RELATIVE_FEATURES, relative_coordinates


class RelativeFeatures(nn.Module):
    """z_i(p) of all instances and visual tokens; depends on neither x nor the time step.

    f is a network of two hidden layers, g a linear map.
    """

    def __init__(self, caption_dim: int, width: int, hidden_dim: int = 256) -> None:
        """Build f and g.

        Args:
            caption_dim: width of the pooled caption features.
            width: F, width of z.
            hidden_dim: width of f's hidden layers.
        """
        super().__init__()
        self.width = width
        self.place = nn.Sequential(
            nn.Linear(RELATIVE_FEATURES, hidden_dim),
            nn.SiLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.SiLU(),
            nn.Linear(hidden_dim, width),
        )
        self.caption = nn.Linear(caption_dim, width)

    def forward(self, locations: LocationTensors, captions: Tensor, size: tuple[int, int]) -> Tensor:
        """Features of B images.

        Args:
            locations: N slots of B images.
            captions: (B, N, caption_dim) pooled caption features.
            size: (height, width) of the feature map in visual tokens; L = height * width.

        Returns:
            (B, N, L, F); zeros for unused slots.
        """
        dtype = self.caption.weight.dtype
        place = self.place(relative_coordinates(locations, size).to(dtype))
        caption = self.caption(captions.to(dtype)) * locations.used[..., None]
        return place * caption[:, :, None]


class RelativeValues(nn.Module):
    """W and w of one gated self-attention layer."""

    def __init__(self, features: int, channels: int, heads: int) -> None:
        """Build the maps, zero at the start.

        Args:
            features: F, width of z; a multiple of `heads`.
            channels: C of the feature map.
            heads: attention heads; each reads its own part of z.
        """
        super().__init__()
        if features % heads:
            raise ValueError(f"relative_values: {features} is not a multiple of {heads} heads")
        self.heads = heads
        self.values = nn.Linear(features, channels, bias=False)
        self.logits = nn.Linear(features, heads, bias=False)
        nn.init.zeros_(self.values.weight)
        nn.init.zeros_(self.logits.weight)

    def bias(self, relative: Tensor, slot: Tensor) -> Tensor:
        """What is added to the logits of the tokens.

        Args:
            relative: (B, N, L, F) z.
            slot: (B, T) int64, the instance of a token, -1 for none.

        Returns:
            (B, heads, L, T).
        """
        each = self.logits(relative).permute(0, 3, 2, 1)
        none = torch.zeros_like(each[..., :1])
        index = slot.remainder(each.shape[-1] + 1)[:, None, None, :].expand(-1, each.shape[1], each.shape[2], -1)
        return torch.cat([each, none], -1).gather(-1, index)

    def forward(self, relative: Tensor, weights: Tensor, slot: Tensor) -> Tensor:
        """The sum of the relative values, weighted by the attention.

        Args:
            relative: (B, N, L, F) z.
            weights: (B, heads, L, T) attention weights of the grounding tokens.
            slot: (B, T) int64, the instance of a token, -1 for none.

        Returns:
            (B, L, C).
        """
        slots = torch.arange(relative.shape[1], device=slot.device)
        owner = (slot[..., None] == slots).to(weights.dtype)  # (B, T, N)
        mass = (weights @ owner[:, None]).permute(0, 3, 2, 1)[..., None]  # (B, N, L, heads, 1)
        parts = relative.to(mass.dtype).unflatten(-1, (self.heads, -1))  # (B, N, L, heads, F / heads)
        # Instance by instance: a product of all of them would be many times larger than what comes of it.
        summed = mass[:, 0] * parts[:, 0]
        for i in range(1, relative.shape[1]):
            summed = torch.addcmul(summed, mass[:, i].expand_as(summed), parts[:, i])
        summed = summed.flatten(2)
        result: Tensor = self.values(summed)
        return result
