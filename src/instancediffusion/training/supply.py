"""What the tasks that learn from drawn scenes have in common: which scenes a step takes, and on which device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from instancediffusion.data import SceneCache
from instancediffusion.data.shards import LATENTS
from instancediffusion.errors import CheckpointError
from instancediffusion.training.task import OnDevice, step_generator

Encode = Callable[[npt.NDArray[np.uint8], int], Tensor]
"""Pictures (B, H, W, 3), by how much they are made smaller first -> latents; see `Latents.of_pictures`."""


class SceneTask(OnDevice):
    """Base of such a task.

    Scenes may be added to the cache while a run goes on. They count from the next checkpoint on, which says how many
    there were, so that a run continued from it draws the same ones.

    Args:
        cache: the scenes.
        seed: of the run.
        encode: makes latents of pictures as they are needed; None takes those that the cache holds.
        identity: by name, the SHA-256 of other weights that what is learned depends on, such as a base's.
    """

    def __init__(
        self, cache: SceneCache, seed: int, encode: Encode | None = None, identity: Mapping[str, str] | None = None
    ) -> None:
        self.cache, self.seed, self.encode, self._identity = cache, seed, encode, dict(identity or {})
        self._scenes = len(cache)

    def draw(self, step: int, count: int) -> tuple[list[int], torch.Generator]:
        """Numbers of `count` scenes, with repetition, and the generator of everything else that is random in a step.

        Where pictures differ in size, the first scene's is that of all.
        """
        generator = step_generator(self.seed, step)
        rows = torch.randint(self._scenes, (count,), generator=generator)
        if len(self.cache.sizes) > 1:
            alike = torch.from_numpy(self.cache.same_size(int(rows[0]), self._scenes))
            rows[1:] = alike[torch.randint(len(alike), (count - 1,), generator=generator)]
        return rows.tolist(), generator

    def latents(self, rows: Sequence[int], name: str = LATENTS, shrink: int = 1) -> Tensor:
        """Latents (B, C, h, w) float32 on the CPU of scenes whose pictures have one size.

        Args:
            rows: their numbers.
            name: which of those that are kept, see `latents_name`.
            shrink: where none are kept, by how much the pictures are made smaller first.
        """
        if self.encode is None:
            return torch.from_numpy(self.cache.rows(name, rows)).float()
        return self.encode(self.cache.rows("images", rows), shrink).float()

    def state(self) -> dict[str, Any]:
        """Return how many scenes are drawn from, and `identity`; scenes added meanwhile count from here on."""
        self.cache.refresh()
        self._scenes = len(self.cache)
        return {"scenes": self._scenes, **self._identity}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Draw from the scenes the checkpoint knew.

        Raises:
            CheckpointError: it is of another `identity`.
        """
        for name, value in self._identity.items():
            if state.get(name) != value:
                raise CheckpointError(
                    f"the checkpoint's {name} has other weights; use the old one, or a new run folder"
                )
        self.cache.refresh()
        self._scenes = int(state["scenes"])
