"""Instance-masked attention: which tokens may attend to which (paper, section 3.2).

Queries are the visual tokens of a feature map; keys are the same visual tokens and the grounding tokens. Rules:

* `none`: nothing is masked.
* `grounding`: a visual token attends to the tokens of an instance only inside that instance's region. Visual tokens
  attend to each other freely, so a picture stays one picture.
* `full`: as `grounding`, and two visual tokens attend to each other only if they share an instance or both lie in none.
* `visibility`: as `grounding`, but softly and by depth: the logits of an instance's tokens get the logarithm of its
  visibility at the visual token, so that a nearer instance takes what both claim (`conditioning.visibility`).
* `published`: the rule of the published code: boxes only, x and y exchanged, 64x64 maps only, background tokens attend
  only to themselves; point, scribble and segmentation tokens are not masked.

Under `grounding` and `full` an instance without box and mask has no region: its tokens are not masked.

Each rule is one object, an `AttentionMaskRule`; `register_mask_rule` adds another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from instancediffusion.choices import INSTANCE_MASK_RULES, InstanceMaskRule
from instancediffusion.conditioning.locations import KINDS, LocationTensors
from instancediffusion.conditioning.regions import instance_regions, published_regions
from instancediffusion.conditioning.visibility import memberships, visibility
from instancediffusion.errors import SettingsError

PUBLISHED_SIDE = 64
_PUBLISHED_MASKED_KINDS = (KINDS.index("box"), KINDS.index("mask"))


@dataclass(frozen=True, eq=False)
class AttentionBias:
    """What is added to the logits of one feature map with L visual tokens and T grounding tokens, in its two parts.

    Kept separate they are small: only rules that mask visual tokens from each other need L x L pairs.

    Attributes:
        tokens: (B, 1, 1 or L, T) float, added to the logits of grounding tokens; -inf masks one.
        visual: (B, 1, L, L) bool, which visual tokens attend to which; None = all to all.
    """

    tokens: Tensor
    visual: Tensor | None = None

    def to(self, dtype: torch.dtype) -> AttentionBias:
        """The same in another type."""
        return AttentionBias(self.tokens.to(dtype), self.visual)

    def select(self, rows: Tensor) -> AttentionBias:
        """The images `rows`, int64, in that order."""
        return AttentionBias(self.tokens[rows], None if self.visual is None else self.visual[rows])

    def joined(self, length: int) -> Tensor:
        """One additive bias for a map of L = `length`: (B, 1, 1 or L, L + T) of the type of `tokens`."""
        tokens = self.tokens
        if self.visual is None:
            return functional.pad(tokens, (length, 0))
        visual = torch.zeros_like(self.visual, dtype=tokens.dtype).masked_fill_(~self.visual, -torch.inf)
        return torch.cat([visual, tokens.expand(-1, -1, length, -1)], -1)


@dataclass(frozen=True, eq=False)
class MaskInputs:
    """The inputs of a rule: one feature map of L visual tokens, and T grounding tokens, of B images.

    Attributes:
        locations: B images of N slots, N at least 1.
        size: (height, width) of the feature map in visual tokens; L = height * width.
        log_weight: (B, T) added to the logits of each grounding token; -inf masks a token.
        slot: (B, T) int64, the instance slot of a token, -1 for padding and segmentation tokens.
        kind: (B, T) int64, index into `KINDS`, `len(KINDS)` for segmentation tokens.
        dtype: type of the bias.
    """

    locations: LocationTensors
    size: tuple[int, int]
    log_weight: Tensor
    slot: Tensor
    kind: Tensor
    dtype: torch.dtype

    @property
    def cells(self) -> int:
        """L, the number of visual tokens."""
        return self.size[0] * self.size[1]

    def image(self, row: int) -> MaskInputs:
        """The inputs of a single image."""
        rows = slice(row, row + 1)
        return MaskInputs(
            self.locations.select([row]),
            self.size,
            self.log_weight[rows],
            self.slot[rows],
            self.kind[rows],
            self.dtype,
        )

    def unmasked(self) -> AttentionBias:
        """Nothing is masked: the bias of the rule `none`."""
        return AttentionBias(self.log_weight[:, None, None].to(self.dtype))

    def weighted(self, share: Tensor) -> AttentionBias:
        """Each instance has the weight `share` (B, N, height, width), 0..1, at each visual token; 0 masks it."""
        logs = share.flatten(2).log()
        # Last row: tokens of no instance.
        logs = torch.cat([logs, torch.zeros_like(logs[:, :1])], 1)
        own = self.slot.remainder(logs.shape[1])[..., None].expand(-1, -1, self.cells)
        bias = (self.log_weight[..., None] + logs.gather(1, own)).transpose(1, 2)
        return AttentionBias(bias[:, None].to(self.dtype))


@dataclass(frozen=True)
class AttentionMaskRule:
    """Which tokens may attend to which in the gated layers.

    Attributes:
        name: the value of `instance_mask`.
        bias: what is added to the logits of one feature map.
        share: from locations and the (height, width) of a map, the weight (B, N, height, width) of each instance at
            each visual token, 0..1; box-relative values are weighted by it. By default `memberships`, which ignore
            depth.
        reads_bitmaps: whether `bias` looks at segmentations; where nothing does they are not kept.
    """

    name: str
    bias: Callable[[MaskInputs], AttentionBias]
    share: Callable[[LocationTensors, tuple[int, int]], Tensor] = memberships
    reads_bitmaps: bool = True


def register_mask_rule(rule: AttentionMaskRule) -> AttentionMaskRule:
    """Add an attention mask rule of your own, or replace one: adapters, settings, commands and the studio know it."""
    INSTANCE_MASK_RULES[rule.name] = rule
    return rule


def mask_rule(name: InstanceMaskRule) -> AttentionMaskRule:
    """The rule of a name.

    Raises:
        SettingsError: there is none.
    """
    if name not in INSTANCE_MASK_RULES:
        raise SettingsError(f"instance_mask: unknown rule {name!r}; choose one of {', '.join(INSTANCE_MASK_RULES)}")
    rule: AttentionMaskRule = INSTANCE_MASK_RULES[name]
    return rule


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
        size: see `MaskInputs`, as for all that follow.
        log_weight: (B, T).
        slot: (B, T) int64.
        kind: (B, T) int64.
        dtype: type of the result.

    Raises:
        SettingsError: unknown rule.
    """
    inputs = MaskInputs(locations, size, log_weight, slot, kind, dtype)
    found = mask_rule(rule)
    return inputs.unmasked() if locations.slots == 0 else found.bias(inputs)


def _by_image(
    inputs: MaskInputs,
    mask: Callable[[MaskInputs], tuple[Tensor, Tensor] | None],
    visual_pairs: Callable[[Tensor], Tensor] | None = None,
) -> AttentionBias:
    """A boolean mask, image by image: the boolean intermediates stay those of one image.

    Args:
        inputs: of the map.
        mask: membership (N, L) of one image and, for each grounding token, the visual tokens that attend to it (T, L);
            None masks nothing.
        visual_pairs: from membership, which visual tokens (L, L) attend to which; None = all to all.
    """
    batch, length = len(inputs.log_weight), inputs.cells
    bias = inputs.log_weight[:, None, None].to(inputs.dtype).repeat(1, 1, length, 1)
    visual = None
    if visual_pairs is not None:
        visual = torch.ones(batch, 1, length, length, dtype=torch.bool, device=bias.device)
    for row in range(batch):
        found = mask(inputs.image(row))
        if found is None:
            continue
        member, visible = found
        bias[row, 0].masked_fill_(~visible.T, -torch.inf)
        if visual is not None and visual_pairs is not None:
            visual[row, 0] = visual_pairs(member)
    return AttentionBias(bias, visual)


def _region_mask(image: MaskInputs) -> tuple[Tensor, Tensor]:
    regions, bounded = instance_regions(image.locations, image.size)
    member = regions[0].flatten(1)
    free = torch.ones_like(member[:1])
    # Last row: tokens that belong to no instance, and instances without a region, are not masked.
    lookup = torch.cat([torch.where(bounded[0, :, None], member, free), free])
    return member, lookup[image.slot[0]]


def _sharing_or_background(member: Tensor) -> Tensor:
    background = ~member.any(0)
    return _sharing(member) | (background[:, None] & background)


def _published(inputs: MaskInputs) -> AttentionBias:
    applies = inputs.size == (PUBLISHED_SIDE, PUBLISHED_SIDE) and bool(_published_applies(inputs.locations).any())
    return _by_image(inputs, _published_mask, _sharing_or_same) if applies else inputs.unmasked()


def _published_applies(locations: LocationTensors) -> Tensor:
    """(B,) bool: the published mask is off for scenes without boxes and masks, so also for the unconditional pass."""
    return (locations.present["box"] | locations.present["mask"]).any(1)


def _published_mask(image: MaskInputs) -> tuple[Tensor, Tensor] | None:
    if not _published_applies(image.locations).all():
        return None
    member = published_regions(image.locations, PUBLISHED_SIDE)[0].flatten(1)
    lookup = torch.cat([member, torch.zeros_like(member[:1])])  # padding tokens belong to an empty region
    kind = image.kind[0]
    masked = torch.isin(kind, torch.tensor(_PUBLISHED_MASKED_KINDS, device=kind.device))
    return member, lookup[image.slot[0]] | ~masked[:, None]


def _sharing_or_same(member: Tensor) -> Tensor:
    return _sharing(member).fill_diagonal_(True)


def _sharing(member: Tensor) -> Tensor:
    """(L, L) bool: two visual tokens lie in a common instance."""
    weights = member.to(torch.float32)
    return (weights.T @ weights) > 0


for _rule in (
    AttentionMaskRule("none", MaskInputs.unmasked, reads_bitmaps=False),
    AttentionMaskRule("grounding", lambda inputs: _by_image(inputs, _region_mask)),
    AttentionMaskRule("full", lambda inputs: _by_image(inputs, _region_mask, _sharing_or_background)),
    AttentionMaskRule(
        "visibility", lambda inputs: inputs.weighted(visibility(inputs.locations, inputs.size)), visibility
    ),
    AttentionMaskRule("published", _published, reads_bitmaps=False),
):
    register_mask_rule(_rule)
