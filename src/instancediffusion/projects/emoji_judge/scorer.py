"""A judge of pictures in the form of a scorer, as training calls it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from instancediffusion.evaluation import Evaluator
from instancediffusion.projects.emoji_judge import Judge
from instancediffusion.projects.emoji_judge.layouts import MIXED, layouts
from instancediffusion.projects.emoji_world import World
from instancediffusion.scene import Scene

LAYOUTS = 32


class JudgeScorer:
    """Scores pictures of a few layouts that are in no training set, every type of location among them.

    Args:
        folder: of the judge.
        world: the layouts are sampled from it.
        count: how many.

    Raises:
        CheckpointError: the folder holds no judge.
    """

    def __init__(self, folder: Path, world: World, count: int = LAYOUTS) -> None:
        self._evaluator = Evaluator(Judge.load(folder))
        self._layouts = list(layouts(world, MIXED, count))
        self.scenes: Sequence[Scene] = [layout.scene for layout in self._layouts]

    def __call__(self, images: Sequence[npt.NDArray[np.uint8]]) -> Mapping[str, float]:
        """Return each metric over all instances; a metric that applies to no instance is left out."""
        pairs = ((image, layout.truth) for image, layout in zip(images, self._layouts, strict=True))
        scores = self._evaluator.group(MIXED, pairs).generated.scores
        return {name: score.value for name, score in scores.items() if not math.isnan(score.value)}
