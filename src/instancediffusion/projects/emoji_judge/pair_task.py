"""Training of the pair reader: composites of overlapping objects, whose order is known because it was drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from instancediffusion.errors import SettingsError
from instancediffusion.evaluation.orders import LEAST_SHARE
from instancediffusion.projects.emoji_world import World
from instancediffusion.rendering import contact_sheet

from .judge_config import JudgeConfig, JudgeLessons
from .label_maps import Lesson, LessonPool, as_pictures, lesson_of
from .pair_reader import PairNetwork, PairReading, pair_crop, pair_window, read_pairs
from .windows import inexact, share_in

PREVIEWS = 16
WEIGHTS = {"owner": 1.0, "order": 0.25, "object": 2.0}

CLEAR = 0.8
"""Fraction of the pixels shown of an overlap that the front object must have for a pair to be a lesson: a third object
may cover the overlap, and a hole in the front one may show the other."""


class Pair(NamedTuple):
    """Two overlapping objects of a lesson, by index, and whether the first is in front."""

    first: int
    second: int
    front: bool


class PairTargets(NamedTuple):
    """Targets for M pairs: `front` (M,) 0 or 1, and `mask` (M, 4, P / 2, P / 2), fractions of each pixel."""

    front: Tensor
    mask: Tensor


class PairTask:
    """Trains the pair reader of a judge on a world. It has the interface of a training stage, as `JudgeTask` has.

    Args:
        config: the judge's; it must have `pair_widths`.
        lessons: the pictures.
        world: they are sampled from it; the side of its pictures is that of the lessons.
        batch_size: pictures in a step.
        seed: of the initial weights and of every random draw.
        half: compute in bfloat16 where it is safe.

    Raises:
        SettingsError: the config has no pair reader.
    """

    def __init__(
        self,
        config: JudgeConfig,
        lessons: JudgeLessons,
        world: World,
        *,
        batch_size: int,
        seed: int = 0,
        half: bool = True,
    ) -> None:
        if not config.pair_widths:
            raise SettingsError("network.pair_widths: the judge has no pair reader; name three numbers of channels")
        self.config, self.lessons, self.batch_size, self.seed, self.half = config, lessons, batch_size, seed, half
        torch.manual_seed(seed)
        self.network = PairNetwork(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules: Mapping[str, nn.Module] = {"pairs": self.network}
        self._pool = LessonPool(world, config, lessons)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a step and its parts; a function of weights and step alone."""
        crops, targets = self._windows(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            reading = self.network(crops.contiguous(memory_format=torch.channels_last))
        return pair_loss(reading, targets)

    @torch.inference_mode()
    def preview(self, step: int, path: Path) -> None:
        """Draw windows of a step, each with the pixels it takes for the first object (red) and the second (green)."""
        crops, targets = self._windows(step)
        reading = self.network(crops.contiguous(memory_format=torch.channels_last))
        pixels = torch.stack([crops[:, :3], torch.zeros_like(crops[:, :3])], 1)
        pixels[:, 1, :2] = functional.interpolate(reading.mask[:, :2].sigmoid(), size=crops.shape[-2:]) * 2 - 1
        sheet = [image for pair in pixels[:PREVIEWS] for image in as_pictures(pair)]
        chances = reading.front.sigmoid().tolist()
        texts = [
            text
            for chance, front in zip(chances, targets.front.tolist(), strict=True)
            for text in (f"first in front: {front:.0f}", f"{chance:.2f}")
        ]
        contact_sheet(sheet, 8, texts[: len(sheet)]).save(path)

    def _windows(self, step: int) -> tuple[Tensor, PairTargets]:
        chosen, images = self._pool.worsened_at(step, self.batch_size, self.seed)
        if not any(map(overlapping, chosen)):
            # Small batches of a world with little overlap: the first that has some, as it is.
            all_there = map(self._pool.lesson, self._pool.window(step))
            chosen = list(islice(filter(overlapping, all_there), 1))
            images = [Image.fromarray(lesson.image) for lesson in chosen]
        rng = np.random.Generator(np.random.PCG64([self.seed, step, 1]))
        return pair_windows(chosen, images, self.config, self.lessons, rng)

    def state(self) -> dict[str, Any]:
        """Return an empty state: a step depends on its number only."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore nothing; the state is empty."""


def pair_windows(
    lessons: Sequence[Lesson],
    images: Sequence[Image.Image],
    config: JudgeConfig,
    settings: JudgeLessons,
    rng: np.random.Generator,
) -> tuple[Tensor, PairTargets]:
    """Choose `settings.crops` pairs of some lessons, each in either role.

    Args:
        lessons: the ground truth of the pictures.
        images: the pictures, RGB, degraded or not.
        config: the judge's sizes.
        settings: how many, and how inexact the boxes are.
        rng: the only source of randomness.

    Raises:
        SettingsError: no two objects of the lessons overlap.
    """
    pairs = [(row, pair) for row, lesson in enumerate(lessons) for pair in overlapping(lesson)]
    if not pairs:
        raise SettingsError("lessons: no two objects overlap; raise options.overlap_share or min_objects")
    crops, masks, fronts = [], [], []
    for index in rng.integers(len(pairs), size=settings.crops):
        row, pair = pairs[int(index)]
        lesson, image = lessons[row], images[row]
        both = [pair.first, pair.second] if rng.random() < 0.5 else [pair.second, pair.first]
        boxes = np.stack([inexact(lesson.boxes[number].astype(np.float64), settings.jitter, rng) for number in both])
        window = pair_window(boxes, image)
        crops.append(pair_crop(image, boxes, window, config.pair_px))
        shown = [lesson.ids == number + 1 for number in both] + [lesson.wholes[number] for number in both]
        masks.append(torch.stack([share_in(mask, window, config.pair_px // 2) for mask in shown]))
        fronts.append(float((both[0] == pair.first) == pair.front))
    return torch.stack(crops), PairTargets(torch.tensor(fronts), torch.stack(masks))


def overlapping(lesson: Lesson) -> list[Pair]:
    """List the pairs of a lesson that overlap, where the overlap shows who is in front."""
    found = []
    for first, second in combinations(range(len(lesson.boxes)), 2):
        shared = lesson.wholes[first] & lesson.wholes[second]
        owned = [int((lesson.ids[shared] == number + 1).sum()) for number in (first, second)]
        if sum(owned) >= LEAST_SHARE * shared.size and max(owned) >= CLEAR * sum(owned):
            found.append(Pair(first, second, owned[0] > owned[1]))
    return found


def pair_loss(reading: PairReading, targets: PairTargets) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of a reading, and numbers to log."""
    shared = targets.mask[:, 2:].prod(1)
    owned = targets.mask[:, 0] / targets.mask[:, :2].sum(1).clamp(min=1e-6)
    each = functional.binary_cross_entropy_with_logits(reading.owner, owned, reduction="none")
    parts = {
        "owner": ((each * shared).sum((1, 2)) / shared.sum((1, 2)).clamp(min=1e-6)).mean(),
        "order": functional.binary_cross_entropy_with_logits(reading.front, targets.front),
        "object": functional.binary_cross_entropy_with_logits(reading.mask, targets.mask),
    }
    right = ((reading.front > 0) == (targets.front > 0.5)).float().mean()
    loss = torch.stack([WEIGHTS[name] * value for name, value in parts.items()]).sum()
    return loss, {**{f"pair_{name}": value.item() for name, value in parts.items()}, "pair_right": right.item()}


@torch.inference_mode()
def check_pairs(network: PairNetwork, config: JudgeConfig, world: World, count: int, first_seed: int) -> dict[str, Any]:
    """Measure a pair reader on composites that were not trained on, given the exact boxes.

    Returns:
        `pairs`: how many overlap; `order`: fraction whose order it says right; `undecided`: fraction of which it says
        none.
    """
    fronts: list[int | None] = []
    for seed in range(first_seed, first_seed + count):
        lesson = lesson_of(world.sample(seed), config)
        pairs = overlapping(lesson)
        boxes = [lesson.boxes[[pair.first, pair.second]].astype(np.float64) for pair in pairs]
        for pair, read in zip(pairs, read_pairs(network, Image.fromarray(lesson.image), boxes), strict=True):
            front = None if read is None else read.front
            fronts.append(None if front is None else int((front == 0) == pair.front))
    share = 1 / max(len(fronts), 1)
    return {
        "pairs": len(fronts),
        "order": round(sum(front == 1 for front in fronts) * share, 4),
        "undecided": round(sum(front is None for front in fronts) * share, 4),
    }
