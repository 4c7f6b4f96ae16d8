"""UniFusion: captions and locations of all four kinds -> grounding tokens (paper, section 3.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from instancediffusion.adapter.mask_encoder import MaskEncoder
from instancediffusion.conditioning import KINDS, LocationTensors

TEMPERATURE = 100.0
"""Largest frequency of the Fourier features."""


def fourier_features(coordinates: Tensor, frequencies: int) -> Tensor:
    """Sines and cosines of coordinates at geometric frequencies f_k = 100^(k / K), without a factor 2 pi.

    Args:
        coordinates: (..., D), fractions of the canvas.
        frequencies: K.

    Returns:
        (..., 2 K D) float32, ordered sin(f_0 c), cos(f_0 c), sin(f_1 c), ... with D values each. Always
        computed in float32: at f = 75 half precision would lose the third digit of the location.
    """
    exponents = torch.arange(frequencies, device=coordinates.device, dtype=torch.float32) / frequencies
    angles = coordinates.float()[..., None, :] * (TEMPERATURE**exponents)[:, None]
    return torch.stack([angles.sin(), angles.cos()], dim=-2).flatten(-3)


@dataclass(frozen=True)
class GroundingTokens:
    """Grounding tokens of B images.

    Attributes:
        tokens: (B, T, D); for each kind N slots and one padding token, then the segmentation tokens.
        log_weight: (B, T) float32, to be added to the attention logits: the logarithm of `token_weight` for used
            tokens, of how many identical padding tokens a padding token stands for, -inf for unused slots.
        slot: (B, T) int64, the slot of a token, -1 for padding and segmentation tokens.
        kind: (B, T) int64, index into `KINDS`; `len(KINDS)` for segmentation tokens.
    """

    tokens: Tensor
    log_weight: Tensor
    slot: Tensor
    kind: Tensor


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, outputs)
    )


class UniFusion(nn.Module):
    """One token per instance and kind of location, from its caption and its Fourier-embedded location.

    The published model pads each kind to 30 tokens. All padding tokens of a kind are the same vector, so one
    of them with log(30 - n) added to its attention logit gives the same result; that is what is returned.
    With n >= 30 instances no padding is left and the padding token is hidden (log 0).
    """

    def __init__(
        self,
        *,
        token_dim: int = 768,
        caption_dim: int = 768,
        hidden_dim: int = 3072,
        slots: int = 30,
        frequencies: int = 16,
        scribble_points: int = 20,
        mask_points: int = 256,
        mask_encoder: MaskEncoder | None = None,
        token_weight: float = 1.0,
        caption_shortcut: bool = False,
    ) -> None:
        """Build the tokenizer.

        Args:
            token_dim: D, width of the tokens.
            caption_dim: width of the pooled caption features.
            hidden_dim: width of the two hidden layers.
            slots: to how many tokens the published model pads; sets the weight of the padding token.
            frequencies: K of the Fourier features.
            scribble_points: points of a scribble.
            mask_points: points that sample a mask.
            mask_encoder: reads the segmentation input; None leaves its tokens out.
            token_weight: weight of an instance's token against that of a visual token before anything is learned. 1
                as published: a visual token of a 16x16 map then gives its own instance little more than one hundredth
                of its attention, which a model trained from nothing takes long to find.
            caption_shortcut: add a linear image of the caption to its tokens, past the hidden layers. False as
                published.
        """
        super().__init__()
        self.slots, self.frequencies, self.token_weight = slots, frequencies, token_weight
        coordinates = {"box": 4, "point": 2, "scribble": 2 * scribble_points, "mask": 2 * mask_points}
        widths = {kind: 2 * frequencies * coordinates[kind] for kind in KINDS}
        self.null_caption = nn.Parameter(torch.zeros(caption_dim))
        self.null_locations = nn.ParameterDict({kind: nn.Parameter(torch.zeros(widths[kind])) for kind in KINDS})
        self.mlps = nn.ModuleDict({kind: _mlp(caption_dim + widths[kind], hidden_dim, token_dim) for kind in KINDS})
        # Zero at the start, so weights trained without an order behave as before.
        self.z_order = nn.Linear(2 * frequencies, token_dim, bias=False)
        nn.init.zeros_(self.z_order.weight)
        self.caption_shortcut = nn.Linear(caption_dim, token_dim, bias=False) if caption_shortcut else None
        self.mask_encoder = mask_encoder
        self.segmentation_mlp = None if mask_encoder is None else _mlp(mask_encoder.features, hidden_dim, token_dim)

    def forward(self, locations: LocationTensors, captions: Tensor, kept: Tensor | None = None) -> GroundingTokens:
        """Tokens of B images with N slots.

        Args:
            locations: where the instances are.
            captions: (B, N, caption_dim) pooled text features; rows of unused slots are ignored.
            kept: (B, 4) bool, by kind in the order of `KINDS`: in these groups a used slot without a location of the
                kind is fed the features of coordinates that are all zero, as in the published inference (its gate is
                `sum(values) + mask > 0`), and not the null feature. None means no group.
        """
        used = locations.used
        batch, slots = used.shape
        dtype = self.null_caption.dtype
        captions = torch.where(used[..., None], captions.to(dtype), self.null_caption)
        # The depth order, on the tokens of all kinds; nothing where none was stated.
        ranks = fourier_features(locations.z_order[..., None] / self.slots, self.frequencies)
        added = self.z_order(ranks.to(self.z_order.weight.dtype) * locations.z_known[..., None])
        if self.caption_shortcut is not None:
            added = added + self.caption_shortcut(captions) * used[..., None]
        groups = []
        for kind, coordinates in (
            ("box", locations.boxes),
            ("point", locations.points),
            ("scribble", locations.scribbles.flatten(2)),
            ("mask", locations.mask_points.flatten(2)),
        ):
            null = self.null_locations[kind]
            present = locations.present[kind]
            if kept is not None:
                coordinates = coordinates * present[..., None]
                present = present | (used & kept[:, KINDS.index(kind), None])
            features = fourier_features(coordinates, self.frequencies).to(dtype)
            features = torch.where(present[..., None], features, null)
            rows = self.mlps[kind](torch.cat([captions, features], dim=-1)) + added
            padding = self.mlps[kind](torch.cat([self.null_caption, null])).expand(batch, 1, -1)
            groups += [rows, padding.to(rows.dtype)]

        padding_count = (self.slots - used.sum(1, keepdim=True)).clamp(min=0).float()
        shown = torch.full(used.shape, math.log(self.token_weight), device=used.device)
        shown = shown.masked_fill(~used, -math.inf)
        log_weight = torch.cat([shown, padding_count.log()], dim=1).repeat(1, len(KINDS))
        index = torch.arange(slots, device=used.device)
        slot = torch.cat([index, index.new_tensor([-1])]).repeat(len(KINDS))
        kind_index = torch.arange(len(KINDS), device=used.device).repeat_interleave(slots + 1)

        if self.mask_encoder is not None and self.segmentation_mlp is not None:
            rows = self.segmentation_mlp(self.mask_encoder(locations))
            extra = rows.shape[1]
            groups.append(rows)
            log_weight = torch.cat([log_weight, log_weight.new_zeros(batch, extra)], dim=1)
            slot = torch.cat([slot, slot.new_full((extra,), -1)])
            kind_index = torch.cat([kind_index, kind_index.new_full((extra,), len(KINDS))])
        tokens = torch.cat(groups, dim=1)
        return GroundingTokens(tokens, log_weight, slot.expand(batch, -1), kind_index.expand(batch, -1))
