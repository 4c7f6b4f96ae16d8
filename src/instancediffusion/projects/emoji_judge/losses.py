"""The losses of the detector and of the reader."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .label_maps import UNKNOWN, Targets
from .network import Answer
from .reader import Reading
from .windows import WindowTargets

WEIGHTS = {
    "there": 1.0,
    "kind": 1.0,
    "colour": 0.5,
    "facing": 0.5,
    "box": 1.0,
    "sides": 2.0,
    "quality": 0.25,
    "object": 1.0,
}
GROUND = 0.3
"""Weight of a feature-map position without object; one of an object has 1 on average."""


def judge_loss(answer: Answer, targets: Targets) -> tuple[Tensor, dict[str, float]]:
    """Return the detector's loss, and numbers to log: its parts, the recall at object positions, the box IoU."""
    weight = torch.where(targets.there > 0, targets.weight, GROUND)
    iou, generalised = box_overlap(answer.box, targets.box)
    parts = {
        "there": _entropy(answer.there, targets.there, weight),
        "box": _mean(1 - generalised, targets.weight),
        "sides": _mean((answer.box - targets.box).abs().sum(1), targets.weight),
        "quality": _mean(
            functional.binary_cross_entropy_with_logits(answer.quality, iou.detach(), reduction="none"), targets.weight
        ),
        "object": functional.binary_cross_entropy_with_logits(answer.object, targets.object),
    }
    loss = torch.stack([WEIGHTS[name] * value for name, value in parts.items()]).sum()
    numbers = {name: value.item() for name, value in parts.items()}
    with torch.no_grad():
        found = (answer.there.argmax(1) == targets.there).float()
        numbers |= {"found": _mean(found, targets.weight).item(), "iou": _mean(iou, targets.weight).item()}
    return loss, numbers


def reading_loss(reading: Reading, targets: WindowTargets) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of a reading, and numbers to log; windows without object count for class and mask only."""
    on = (targets.kind > 0).float()
    iou, generalised = box_overlap(reading.box, targets.box)
    parts = {
        "kind": functional.cross_entropy(reading.kind, targets.kind),
        "colour": _entropy(reading.colour, targets.colour, on),
        "facing": _entropy(reading.facing, targets.facing, on),
        "box": _mean(1 - generalised, on),
        "sides": _mean((reading.box - targets.box).abs().sum(1), on),
        "object": functional.binary_cross_entropy_with_logits(reading.mask, targets.mask),
    }
    loss = torch.stack([WEIGHTS[name] * value for name, value in parts.items()]).sum()
    numbers = {f"read_{name}": value.item() for name, value in parts.items()}
    with torch.no_grad():
        right = (reading.kind.argmax(1) == targets.kind).float().mean()
        numbers |= {"read_right": right.item(), "read_iou": _mean(iou, on).item()}
    return loss, numbers


def box_overlap(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return IoU and generalised IoU (Rezatofighi et al. 2019) of boxes (B, 4, ...), each (B, ...)."""
    ax0, ay0, ax1, ay1 = first.unbind(1)
    bx0, by0, bx1, by1 = second.unbind(1)
    intersection = (torch.minimum(ax1, bx1) - torch.maximum(ax0, bx0)).clamp(min=0) * (
        torch.minimum(ay1, by1) - torch.maximum(ay0, by0)
    ).clamp(min=0)
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - intersection
    hull = (torch.maximum(ax1, bx1) - torch.minimum(ax0, bx0)) * (torch.maximum(ay1, by1) - torch.minimum(ay0, by0))
    iou = intersection / union.clamp(min=1e-6)
    return iou, iou - (hull - union) / hull.clamp(min=1e-6)


def _entropy(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean cross entropy over the elements that have a label; 0 where there are none."""
    if logits.shape[1] == 0:
        return logits.sum()
    each = functional.cross_entropy(logits, labels, ignore_index=UNKNOWN, reduction="none")
    return _mean(each, weight * (labels != UNKNOWN))


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1e-6)
