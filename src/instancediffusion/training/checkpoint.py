"""One file holds all state of a training run: weights, their running mean, optimiser, step, and the recipe.

The random numbers of a step are made from the seed and the number of the step alone, so no generator has to be kept.
The file is written under another name and renamed, so a kill at any moment leaves the last whole one; it is read with
`weights_only=True`, so nothing in it is executed.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from instancediffusion.errors import CheckpointError
from instancediffusion.runs import atomic_path

FORMAT = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers, strings, lists and dicts as one file, whole or not at all."""
    with atomic_path(path) as temporary:
        torch.save({"format": FORMAT, **state}, temporary)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint; None if there is none.

    Raises:
        CheckpointError: the file is damaged, holds code, or has another format.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path} cannot be read as a training checkpoint; move it away to start anew") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a training checkpoint of format {FORMAT}; move it away to start anew")
    return state
