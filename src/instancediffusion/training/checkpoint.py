"""One file holds all state of a training run: weights, EMA weights, optimiser, step, and the recipe.

The random numbers of a step are made from the seed and the number of the step alone, so no generator has to be kept.
The file is written under another name and renamed, so a kill at any moment leaves the last whole one; it is read with
`weights_only=True`, so nothing in it is executed.
"""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from instancediffusion.errors import CheckpointError, SettingsError
from instancediffusion.runs import atomic_path
from instancediffusion.training.ema import Ema
from instancediffusion.training.run_sections import OptimiserConfig
from instancediffusion.training.sections import DatasetConfig
from instancediffusion.training.task import Task

CHECKPOINT = "checkpoint.pt"
"""Its name in the folder of a stage."""

FORMAT = 1

_FREE = frozenset(
    {
        *("steps", "scenes", "checkpoint_every", "checkpoint_minutes", "log_every", "preview_every", "score_every"),
        *("compile", "gradient_checkpointing", "workers", "wordnet", "likeness"),
    }
)
"""Settings that change only how long, how often, how fast, on how much more data, where files lie and what an export
says; a run continues whatever they say."""

_BEFORE = {
    "algorithm": "adamw",
    "base": "",
    "train": "all",
    "timesteps": "logit-normal",
    "noise_draws": 1,
    "stages": [],
    "start": "",
    "start_networks": True,
    "reversed_scenes": 0,
    "dataset": json.loads(json.dumps(asdict(DatasetConfig()))),
    "cache_latents": True,
    "patch": 1,
    "up_block_types": [],
    "down_block_types": [],
    "transformer_layers": [],
    "object_weight": 0.0,
    "hard_mask": 0.0,
    "teacher": "",
    "nouns": 20_000,
    "words": json.loads(json.dumps(asdict(OptimiserConfig()))),
}
"""What a setting was before there was one, so that older runs go on."""


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


def freeze(task: Task, config: OptimiserConfig, folder: Path) -> int:
    """Put the EMA weights kept in a folder's checkpoint into the task's modules, and freeze them.

    Returns:
        The number of steps it was trained for.

    Raises:
        SettingsError: the folder has no checkpoint.
    """
    state = load_checkpoint(folder / CHECKPOINT)
    if state is None:
        raise SettingsError(f"{folder}: no checkpoint; train this stage first")
    for name, module in task.modules.items():
        module.load_state_dict(state["modules"][name])
    ema = Ema(task.modules, config.ema_decay)
    ema.load_state_dict(state["ema"])
    ema.apply()
    for module in task.modules.values():
        module.eval().requires_grad_(False)
    return int(state["step"])


def check_same_recipe(state: dict[str, Any], asked: dict[str, Any], path: Path) -> None:
    """Refuse to continue with other settings, except for those that may change under way.

    Args:
        state: the checkpoint; settings that its recipe has beyond `asked` are ignored.
        asked: settings the stage depends on.
        path: of the checkpoint, for the message.

    Raises:
        CheckpointError: with the names of the settings that differ.
    """
    if found := _differing(json.loads(state["recipe"]), json.loads(json.dumps(asked)), int(state["step"])):
        raise CheckpointError(
            f"{path} was made with other settings of {', '.join(found)}; use another run folder or the old recipe"
        )


def _differing(kept: Any, asked: Any, step: int, name: str = "") -> list[str]:
    if isinstance(kept, dict) and isinstance(asked, dict):
        found = []
        for key in asked:
            if key not in _FREE:
                old = kept[key] if key in kept else _BEFORE.get(key)
                found += _differing(old, asked[key], step, f"{name}.{key}" if name else key)
        return found
    if name == "diffusion.stages" and isinstance(kept, list):  # what is to come may be planned anew
        kept, asked = ([stage for stage in stages if stage["from_step"] < step] for stages in (kept, asked))
    return [] if kept == asked else [name]
