"""Windows that the reader is trained on: objects of lessons, with boxes as inexact as those the detector predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from instancediffusion.evaluation.seen import Floats
from instancediffusion.geometry import box_iou

from .judge_config import JudgeConfig, JudgeLessons
from .label_maps import UNKNOWN, Lesson
from .reader import crops_of

APART = 0.15
"""IoU with every object below which a window counts as showing none."""


@dataclass(frozen=True)
class WindowTargets:
    """Targets of the reader for M windows.

    Attributes:
        kind: (M,) int64; 0 is "no object".
        colour: (M,) int64, or `UNKNOWN`.
        facing: (M,) int64, or `UNKNOWN`.
        box: (M, 4), fractions of the window; meaningless without object.
        mask: (M, 2, P / 2, P / 2), fractions of each pixel that the visible and the amodal mask cover.
    """

    kind: Tensor
    colour: Tensor
    facing: Tensor
    box: Tensor
    mask: Tensor


def windows_of(
    lessons: Sequence[Lesson],
    images: Sequence[Image.Image],
    config: JudgeConfig,
    settings: JudgeLessons,
    rng: np.random.Generator,
) -> tuple[Tensor, WindowTargets]:
    """Choose `settings.crops` windows of some lessons.

    Args:
        lessons: the ground truth of the pictures.
        images: the pictures, RGB, degraded or not.
        config: the judge's sizes.
        settings: how many, and how inexact.
        rng: the only source of randomness.
    """
    instances = [(row, number) for row, lesson in enumerate(lessons) for number in range(len(lesson.boxes))]
    crops, traits, boxes, masks = [], [], [], []
    for index in rng.integers(len(instances), size=settings.crops):
        row, number = instances[int(index)]
        lesson, box = lessons[row], None
        if rng.random() < settings.empty:
            box = _elsewhere(lesson, rng)
        empty = box is not None
        whole = lesson.boxes[number].astype(np.float64)
        if box is None:
            box = inexact(whole, settings.jitter, rng)
        crop, windows = crops_of(images[row], box[None], config.crop_px)
        size = np.array([images[row].width, images[row].height] * 2)
        crops.append(crop)
        side = windows[0, 2] - windows[0, 0]
        boxes.append((whole * size - np.tile(windows[0, :2], 2)) / side)
        traits.append([UNKNOWN] * 3 if empty else list(lesson.traits[number]))
        shown = [lesson.ids == number + 1, lesson.wholes[number]]
        covered = [share_in(mask, windows[0], config.crop_px // 2) for mask in shown]
        masks.append(torch.stack(covered) * (not empty))
    kind, colour, facing = torch.tensor(np.array(traits, np.int64)).unbind(1)
    return torch.cat(crops), WindowTargets(
        kind + 1, colour, facing, torch.tensor(np.array(boxes), dtype=torch.float32), torch.stack(masks)
    )


def share_in(mask: npt.NDArray[np.bool_], window: Floats, side_px: int) -> Tensor:
    """Return the fraction of each pixel (side, side) of a window that a bitmap (H, W) covers; 0 outside the bitmap."""
    height, width = mask.shape
    margin = int(np.ceil(max(0.0, -window.min(), window[2] - width, window[3] - height))) + 1
    wide = Image.fromarray(np.pad(mask, margin).astype(np.uint8) * 255)
    x0, y0, x1, y1 = (float(value) + margin for value in window)
    small = wide.resize((side_px, side_px), Image.Resampling.BOX, box=(x0, y0, x1, y1))
    return torch.from_numpy(np.array(small)).float() / 255


def inexact(box: Floats, jitter: float, rng: np.random.Generator) -> Floats:
    """Move each side of a box a little, and sometimes more."""
    sides = np.tile(box[2:] - box[:2], 2)
    scale = jitter * (2.0 if rng.random() < 0.25 else 1.0)
    moved: Floats = box + sides * np.clip(scale * rng.normal(size=4), -0.3, 0.3)
    return moved


def _elsewhere(lesson: Lesson, rng: np.random.Generator) -> Floats | None:
    """Return a box that hardly overlaps any object; None if there is no room."""
    for _ in range(8):
        sides = rng.uniform(0.12, 0.5, 2)
        corner = rng.random(2) * (1 - sides)
        box = np.concatenate([corner, corner + sides])
        if box_iou(box, lesson.boxes).max() >= APART:
            continue
        height, width = lesson.ids.shape
        x0, y0, x1, y1 = (box * np.array([width, height] * 2)).astype(int)
        if (lesson.ids[y0:y1, x0:x1] > 0).mean() < APART:
            return box
    return None
