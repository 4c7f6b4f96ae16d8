"""Instance-masked attention: who may attend to whom (paper, section 3.2).

Queries are the cells of a feature map ("visual"); keys are the same cells and the grounding tokens. Rules:

* `none`: everything is seen.
* `grounding`: a cell sees the tokens of an instance only inside that instance's region. Cells see each
  other freely, so a picture stays one picture.
* `full`: as `grounding`, and two cells see each other only if they share an instance or both lie in none.
* `visibility`: as `grounding`, but softly and by depth: the logits of an instance's tokens get the logarithm of how
  much of it is to be seen in the cell, so that a nearer instance takes what both claim (`conditioning.visibility`).
* `published`: the rule of the published code: boxes only, x and y exchanged, 64x64 maps only, background
  cells see only themselves; point, scribble and segmentation tokens are seen everywhere.

Under `grounding` and `full` an instance without box and mask has no region: its tokens are seen everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from instancediffusion.choices import InstanceMaskRule
from instancediffusion.conditioning.locations import KINDS, LocationTensors
from instancediffusion.conditioning.regions import instance_regions, published_regions
from instancediffusion.conditioning.visibility import visibility

PUBLISHED_SIDE = 64
_PUBLISHED_MASKED_KINDS = (KINDS.index("box"), KINDS.index("mask"))


@dataclass(frozen=True, eq=False)
class AttentionBias:
    """What is added to the logits of one feature map with L visual tokens and T grounding tokens, in its two parts.

    Apart they are small: but for rules that keep visual tokens from each other there is nothing to say of L x L pairs.

    Attributes:
        tokens: (B, 1, 1 or L, T) float, added to the logits of grounding tokens; -inf hides one.
        visual: (B, 1, L, L) bool, which visual tokens see which; None = all see all.
    """

    tokens: Tensor
    visual: Tensor | None = None

    def to(self, dtype: torch.dtype) -> AttentionBias:
        """The same in another type."""
        return AttentionBias(self.tokens.to(dtype), self.visual)

    def select(self, rows: Tensor) -> AttentionBias:
        """The images `rows`, int64, in that order."""
        return AttentionBias(self.tokens[rows], None if self.visual is None else self.visual[rows])

    def joined(self, cells: int) -> Tensor:
        """One additive bias for a map of L = `cells`: (B, 1, 1 or L, L + T) of the type of `tokens`."""
        tokens = self.tokens
        if self.visual is None:
            return functional.pad(tokens, (cells, 0))
        visual = torch.zeros_like(self.visual, dtype=tokens.dtype).masked_fill_(~self.visual, -torch.inf)
        return torch.cat([visual, tokens.expand(-1, -1, cells, -1)], -1)


def attention_bias(
    rule: InstanceMaskRule,
    locations: LocationTensors,
    size: tuple[int, int],
    *,
    log_weight: Tensor,
    slot: Tensor,
    kind: Tensor,
    dtype: torch.dtype,
) -> AttentionBias:
    """The attention bias of one feature map.

    Args:
        rule: one of `choices.INSTANCE_MASK_RULES`.
        locations: B images of N slots.
        size: (height, width) of the feature map in cells; L = height * width.
        log_weight: (B, T) added to the logits of each grounding token; -inf hides a token.
        slot: (B, T) int64, the instance slot of a token, -1 for padding and segmentation tokens.
        kind: (B, T) int64, index into `KINDS`, `len(KINDS)` for segmentation tokens.
        dtype: type of the result.
    """
    batch = len(log_weight)
    cells = size[0] * size[1]
    if rule == "published" and (size != (PUBLISHED_SIDE, PUBLISHED_SIDE) or not _published_applies(locations).any()):
        rule = "none"
    if rule == "none" or locations.slots == 0:
        return AttentionBias(log_weight[:, None, None].to(dtype))
    if rule == "visibility":
        seen = visibility(locations, size).flatten(2).log()
        # Last row: tokens of no instance.
        seen = torch.cat([seen, torch.zeros_like(seen[:, :1])], 1)
        own = slot.remainder(seen.shape[1])[..., None].expand(-1, -1, cells)
        return AttentionBias((log_weight[..., None] + seen.gather(1, own)).transpose(1, 2)[:, None].to(dtype))

    bias = log_weight[:, None, None].to(dtype).repeat(1, 1, cells, 1)
    visual = None
    if rule != "grounding":
        visual = torch.ones(batch, 1, cells, cells, dtype=torch.bool, device=log_weight.device)
    for row in range(batch):  # image by image: the boolean intermediates stay those of one image
        image = locations.select([row])
        if rule == "published" and not _published_applies(image).all():
            continue
        if rule == "published":
            member, seen = _published_image(image, slot[row], kind[row])
        else:
            member, seen = _image(image, size, slot[row])
        bias[row, 0].masked_fill_(~seen.T, -torch.inf)
        if visual is None:
            continue
        shared = _share(member)
        if rule == "published":
            shared.fill_diagonal_(True)
        else:
            background = ~member.any(0)
            shared |= background[:, None] & background
        visual[row, 0] = shared
    return AttentionBias(bias, visual)


def _image(image: LocationTensors, size: tuple[int, int], slot: Tensor) -> tuple[Tensor, Tensor]:
    """Membership (N, L) and, for each token, the cells that see it (T, L)."""
    regions, known = instance_regions(image, size)
    member = regions[0].flatten(1)
    free = torch.ones_like(member[:1])
    # Last row: tokens that belong to no instance, and instances without a region, are seen everywhere.
    lookup = torch.cat([torch.where(known[0, :, None], member, free), free])
    return member, lookup[slot]


def _published_image(image: LocationTensors, slot: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
    member = published_regions(image, PUBLISHED_SIDE)[0].flatten(1)
    lookup = torch.cat([member, torch.zeros_like(member[:1])])  # padding tokens belong to an empty region
    masked = torch.isin(kind, torch.tensor(_PUBLISHED_MASKED_KINDS, device=kind.device))
    return member, lookup[slot] | ~masked[:, None]


def _published_applies(locations: LocationTensors) -> Tensor:
    """(B,) bool: the published mask is off for scenes without boxes and masks, so also for the unconditional pass."""
    return (locations.present["box"] | locations.present["mask"]).any(1)


def _share(member: Tensor) -> Tensor:
    """(L, L) bool: two cells lie in a common instance."""
    weights = member.to(torch.float32)
    return (weights.T @ weights) > 0
