"""Training of a judge, as the training loop calls it.

The class has the interface of a training stage (`modules`, `loss`, `preview`, `state`, `load_state`) and does not
depend on the loop; `instancediffusion judge train` combines the two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from instancediffusion.errors import SettingsError
from instancediffusion.projects.emoji_world import COLOURS, World
from instancediffusion.rendering import contact_sheet

from .judge import Judge, cells_input, colours_of
from .judge_config import JudgeConfig, JudgeLessons
from .label_maps import LessonPool, targets_of
from .losses import judge_loss, reading_loss
from .network import JudgeNetwork
from .windows import windows_of

PREVIEWS = 8
UNSEEN = 9_000_000
"""Seeds this far beyond the first are in no lesson."""


class JudgeTask:
    """Trains a judge on a world.

    Args:
        config: the network; its classes and colours are taken from the world where it names none.
        lessons: the pictures.
        world: they are sampled from it; the side of its pictures is that of the lessons.
        batch_size: pictures in a step.
        seed: of the initial weights and of every random draw.
        half: compute in bfloat16 where it is safe.

    Raises:
        SettingsError: the world's pictures have another side.
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
        if world.spec.size != lessons.side_px:
            raise SettingsError(f"the world's size is {world.spec.size}, the lessons' side_px {lessons.side_px}")
        self.config = with_words(config, world)
        self.lessons, self.batch_size, self.seed, self.half = lessons, batch_size, seed, half
        torch.manual_seed(seed)
        self.network = JudgeNetwork(self.config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules: Mapping[str, nn.Module] = {"judge": self.network}
        self._pool = LessonPool(world, self.config, lessons)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a step and its parts; a function of weights and step alone."""
        chosen, images = self._pool.worsened_at(step, self.batch_size, self.seed)
        x = torch.stack([cells_input(image, self.config.side_px) for image in images])
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            answer = self.network(x.contiguous(memory_format=torch.channels_last))
        loss, numbers = judge_loss(answer, targets_of(chosen, self.config))
        rng = np.random.Generator(np.random.PCG64([self.seed, step, 1]))
        crops, targets = windows_of(chosen, images, self.config, self.lessons, rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            reading = self.network.reader(crops.contiguous(memory_format=torch.channels_last))
        more, others = reading_loss(reading, targets)
        return loss + more, numbers | others

    def preview(self, step: int, path: Path) -> None:  # noqa: ARG002
        """Draw pictures that are in no lesson yet, with the detections in them."""
        lessons = [self._pool.lesson(self.lessons.first_seed + UNSEEN + k) for k in range(PREVIEWS)]
        detections = Judge(self.network).look([lesson.image for lesson in lessons])
        maps = [Image.fromarray(one.labels * 37) for one in detections]
        texts = [", ".join(f"{item.colour} {item.name}" for item in one.instances) for one in detections]
        pictures = [Image.fromarray(lesson.image) for lesson in lessons]
        contact_sheet([*pictures, *maps], PREVIEWS, [""] * PREVIEWS + texts).save(path)

    def state(self) -> dict[str, Any]:
        """Return an empty state: a step depends on its number only."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore nothing; the state is empty."""


def with_words(config: JudgeConfig, world: World) -> JudgeConfig:
    """Return the config with the names and colours of a world, where it names none."""
    colours = colours_of(world)
    return dataclasses.replace(
        config,
        kinds=config.kinds or tuple(kind.name for kind in world.kinds),
        colours=config.colours or tuple(colour for colour in COLOURS if colour in colours),
    )
