"""The finished model of a stage: the running mean of its weights."""

from __future__ import annotations

from pathlib import Path

from instancediffusion.errors import SettingsError
from instancediffusion.training.checkpoint import load_checkpoint
from instancediffusion.training.config import OptimiserConfig
from instancediffusion.training.ema import Ema
from instancediffusion.training.loop import CHECKPOINT
from instancediffusion.training.task import Task


def freeze(task: Task, config: OptimiserConfig, folder: Path) -> int:
    """Put the running mean kept in a folder's checkpoint into the task's modules.

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
