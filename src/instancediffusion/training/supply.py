"""What the tasks that learn from drawn scenes have in common: which scenes a step takes, and where it is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from instancediffusion.data import SceneCache
from instancediffusion.training.seeds import step_generator
from instancediffusion.training.task import Place


class SceneTask:
    """Base of such a task.

    Scenes may be added to the cache while a run goes on. They count from the next checkpoint on, which says how many
    there were, so that a run continued from it draws the same ones.

    Args:
        cache: the scenes.
        seed: of the run.
    """

    def __init__(self, cache: SceneCache, seed: int) -> None:
        self.cache, self.seed, self.where = cache, seed, Place()
        self._scenes = len(cache)

    def draw(self, step: int, count: int) -> tuple[list[int], torch.Generator]:
        """Numbers of `count` scenes, with repetition, and the generator of everything else that is random in a step."""
        generator = step_generator(self.seed, step)
        return torch.randint(self._scenes, (count,), generator=generator).tolist(), generator

    def state(self) -> dict[str, Any]:
        """Return how many scenes are drawn from; scenes added meanwhile count from here on."""
        self.cache.refresh()
        self._scenes = len(self.cache)
        return {"scenes": self._scenes}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Draw from the scenes the checkpoint knew."""
        self.cache.refresh()
        self._scenes = int(state["scenes"])
