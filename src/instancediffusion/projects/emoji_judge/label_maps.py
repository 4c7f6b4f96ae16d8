"""Composites as training targets of a judge: label maps, sampled from the world when they are first needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from instancediffusion.projects.emoji_world import World, WorldSample

from .judge_config import JudgeConfig, JudgeLessons

UNKNOWN = -1
"""Label that the loss ignores, such as the colour of an object that has none."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """One composite.

    Attributes:
        image: (S, S, 3) uint8.
        ids: (S, S) uint8: 0 no object, k + 1 instance k.
        traits: (n, 3) int64, class, colour and orientation of each instance, as indices into the judge's words.
        boxes: (n, 4) float32, x0 y0 x1 y1 fractions.
        wholes: (n, S, S) bool, amodal mask of each instance.
    """

    image: npt.NDArray[np.uint8]
    ids: npt.NDArray[np.uint8]
    traits: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    wholes: npt.NDArray[np.bool_]


def lesson_of(sample: WorldSample, config: JudgeConfig) -> Lesson:
    """Turn a sample into a lesson."""
    ids = np.zeros(sample.image.shape[:2], np.uint8)
    for number, item in enumerate(sample.instances):
        ids[item.visible] = number + 1
    traits = [
        (config.kinds.index(item.name), _number(config.colours, item.colour), _number(config.facings, item.facing))
        for item in sample.instances
    ]
    return Lesson(
        sample.image,
        ids,
        np.array(traits, np.int64).reshape(-1, 3),
        np.array([item.box for item in sample.instances], np.float32).reshape(-1, 4),
        np.array([item.amodal for item in sample.instances], bool).reshape(-1, *ids.shape),
    )


@dataclass(frozen=True)
class Targets:
    """Targets of the detector for B pictures.

    Attributes:
        there: (B, g, g) int64: 1 where there is an object.
        box: (B, 4, g, g), fractions; meaningless where there is no object.
        weight: (B, g, g): 0 without object, else 1/sqrt(visible area) so that small objects count, mean 1 over objects.
        object: (B, 1, 2g, 2g), fraction that objects cover, at twice the resolution of the feature map.
    """

    there: Tensor
    box: Tensor
    weight: Tensor
    object: Tensor


def targets_of(lessons: Sequence[Lesson], config: JudgeConfig) -> Targets:
    """Stack the targets of some lessons; each feature-map position has the label of its centre pixel."""
    ids = torch.from_numpy(np.stack([lesson.ids for lesson in lessons])).long()
    middles = ((torch.arange(config.grid) + 0.5) * (ids.shape[-1] / config.grid)).long()
    labels = ids[:, middles[:, None], middles]
    fine = functional.adaptive_avg_pool2d((ids > 0).float()[:, None], 2 * config.grid)
    most = max(len(lesson.boxes) for lesson in lessons) + 1
    boxes, weights = torch.zeros(len(lessons), most, 4), torch.zeros(len(lessons), most)
    for row, lesson in enumerate(lessons):
        count = len(lesson.boxes)
        boxes[row, 1 : count + 1] = torch.from_numpy(lesson.boxes)
        area = torch.bincount(labels[row].flatten(), minlength=most)[1 : count + 1]
        weights[row, 1 : count + 1] = area.clamp(min=1).rsqrt()
    batch = torch.arange(len(lessons))[:, None, None]
    weight = weights[batch, labels]
    weight = weight * ((labels > 0).sum().clamp(min=1) / weight.sum().clamp(min=1e-6))
    return Targets((labels > 0).long(), boxes[batch, labels].permute(0, 3, 1, 2), weight, fine)


def pixels_of(images: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
    """(H, W, 3) uint8 each -> (B, 3, H, W) float32, -1..1."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def as_pictures(x: Tensor) -> list[Image.Image]:
    """(B, 3, H, W), -1..1 -> pictures."""
    pixels = ((x + 1) * 127.5 + 0.5).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(one) for one in pixels]


def worsened(x: Tensor, lessons: JudgeLessons, generator: torch.Generator) -> Tensor:
    """Degrade pictures a little (augmentation), so that the judge does not depend on the exactness of composites.

    Args:
        x: (B, 3, S, S), -1..1.
        lessons: how much.
        generator: the only source of randomness.
    """

    def chance(probability: float) -> Tensor:
        return torch.rand(len(x), 1, 1, 1, generator=generator) < probability

    def normal(channels: int, side: int) -> Tensor:
        return torch.randn(len(x), channels, side, side, generator=generator)

    side, x = x.shape[-1], x.clone()
    some = chance(lessons.coarse).flatten()
    x[some] = functional.interpolate(functional.avg_pool2d(x[some], 2), size=(side, side), mode="bilinear")
    some = chance(lessons.blur).flatten()
    x[some] = functional.avg_pool2d(x[some], 3, 1, 1, count_include_pad=False)
    gain, offset = (lessons.shade * (normal(1, 1) + normal(3, 1) / 3).clamp(-1.5, 1.5) / 1.5 for _ in range(2))
    x = x * (1 + gain) + offset
    for resolution in (side, 16):
        strength = lessons.noise * torch.rand(len(x), 1, 1, 1, generator=generator) ** 2
        grain = normal(3, resolution)
        if resolution != side:
            grain = functional.interpolate(grain, size=(side, side), mode="bilinear", align_corners=False)
        x = x + strength * grain
    return x.clamp(-1, 1)


class LessonPool:
    """The lessons of any step, as a function of the step alone.

    At step k the pictures of seeds first + k fresh ... + pool can be chosen; a picture is made when it is chosen for
    the first time and dropped when the window has passed it. A resumed run therefore makes the chosen pictures of the
    window again, and they are the same.

    Args:
        world: the pictures are sampled from it.
        config: the judge's classes and attributes.
        lessons: the window.
    """

    def __init__(self, world: World, config: JudgeConfig, lessons: JudgeLessons) -> None:
        self._world, self._config, self._lessons = world, config, lessons
        self._kept: dict[int, Lesson] = {}

    def at(self, step: int, count: int, generator: torch.Generator) -> list[Lesson]:
        """Choose `count` lessons of a step."""
        window = self.window(step)
        chosen = torch.randint(len(window), (count,), generator=generator) + window.start
        for seed in [seed for seed in self._kept if seed < window.start]:
            del self._kept[seed]
        return [self.lesson(int(seed)) for seed in chosen]

    def window(self, step: int) -> range:
        """World seeds that a step can choose from."""
        first = self._lessons.first_seed + step * self._lessons.fresh
        return range(first, first + self._lessons.pool)

    def worsened_at(self, step: int, count: int, seed: int) -> tuple[list[Lesson], list[Image.Image]]:
        """Choose `count` lessons of a step, with their pictures degraded; `seed` is that of the run."""
        words = np.random.SeedSequence([seed, step]).generate_state(2, np.uint32)
        generator = torch.Generator().manual_seed(int(words.view(np.uint64)[0] >> 1))
        chosen = self.at(step, count, generator)
        return chosen, as_pictures(worsened(pixels_of([one.image for one in chosen]), self._lessons, generator))

    def lesson(self, seed: int) -> Lesson:
        """Return the lesson of a world seed."""
        if seed not in self._kept:
            self._kept[seed] = lesson_of(self._world.sample(seed), self._config)
        return self._kept[seed]


def _number(words: Sequence[str], word: str | None) -> int:
    return words.index(word) if word is not None else UNKNOWN
