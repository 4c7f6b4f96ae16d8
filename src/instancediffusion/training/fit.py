"""The loop all stages share: step, clip, average, log, keep.

A stage hands in a `Task`; everything that makes a run resumable is here, once. The random numbers of step k are drawn
from a generator seeded with (seed, k): a run that is killed and started again therefore makes the same steps, bit for
bit on one process, and several processes can share the batch of one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from instancediffusion.training.checkpoint import CHECKPOINT, check_same_recipe, load_checkpoint, save_checkpoint
from instancediffusion.training.config import OptimiserConfig
from instancediffusion.training.ema import Ema
from instancediffusion.training.logbook import Logbook
from instancediffusion.training.optimisers import Optimiser, optimiser, trainable
from instancediffusion.training.processes import (
    average_small,
    gathered,
    load_module,
    load_optimiser,
    mean_numbers,
    open_accelerator,
    prepare,
    whole_here,
)
from instancediffusion.training.schedule import Schedule
from instancediffusion.training.task import Place, Placed, Scored, Task


def fit(
    task: Task,
    config: OptimiserConfig,
    folder: Path,
    recipe: dict[str, Any],
    *,
    stop_after: int | None = None,
    schedule: Schedule | None = None,
) -> Ema:
    """Train until `config.steps`, continuing from the folder's checkpoint if there is one.

    Every process of a run calls this alike; the first of them writes.

    Args:
        task: the stage.
        config: the run.
        folder: where checkpoint, metrics and previews go.
        recipe: kept in the checkpoint; a run is not continued with another one.
        stop_after: end after this many steps of this call, with a checkpoint (to hand the machine over).
        schedule: of a run in stages; None makes that of `config`.

    Returns:
        The EMA weights; the modules hold the last step's.

    Raises:
        CheckpointError: the folder's checkpoint is unreadable or belongs to another recipe.
        SettingsError: a batch cannot be divided equally among the processes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    schedule = schedule or Schedule(config)
    accelerator = open_accelerator(folder)
    if isinstance(task, Placed):
        schedule.check_shares(accelerator.num_processes)
        task.place(Place(accelerator.device, accelerator.process_index, accelerator.num_processes))
    adam = optimiser(task.modules, config)
    loss_of = prepare(accelerator, task, adam)
    parameters = trainable(task.modules)
    ema = Ema(task.modules, config.ema_decay)
    first = _restore(task, adam, ema, folder, recipe)
    if not first:
        _agree(task, accelerator)
    last = config.steps if stop_after is None else min(config.steps, first + stop_after)
    book = Logbook(schedule, folder, accelerator, first)
    kept = time.monotonic()
    for step in range(first, last):
        for group in adam.param_groups:
            group["lr"] = schedule.learning_rate(step)
        loss, numbers = loss_of(step)
        adam.zero_grad(set_to_none=True)
        accelerator.backward(loss)
        average_small(accelerator, parameters)
        norm = accelerator.clip_grad_norm_(parameters, config.grad_clip)
        if torch.isfinite(norm):  # one overflowing step must not end a run; the norm is the same on all processes
            adam.step()
        ema.update()
        value, numbers = mean_numbers(accelerator, loss, numbers)
        book.add(step, value, float(norm), numbers)
        done = step + 1
        if done % config.checkpoint_every == 0 or done == last or _due(config, kept, accelerator):
            _keep(task, adam, ema, folder, recipe, done, accelerator)
            kept = time.monotonic()
        if accelerator.is_main_process and whole_here(parameters):
            _look(task, config, ema, folder, done, book)
    book.close()
    accelerator.free_memory()
    return ema


def _due(config: OptimiserConfig, kept: float, accelerator: Accelerator) -> bool:
    """Whether the last checkpoint is old enough by the clock of the first process."""
    if not config.checkpoint_minutes:
        return False
    old = [time.monotonic() - kept >= 60 * config.checkpoint_minutes]
    if accelerator.num_processes > 1:
        broadcast_object_list(old)
    return old[0]


def _look(task: Task, config: OptimiserConfig, ema: Ema, folder: Path, done: int, book: Logbook) -> None:
    """Preview and score the EMA weights, when it is due."""

    def due(every: int) -> bool:
        return bool(every) and (done % every == 0 or done == config.steps)

    if due(config.preview_every):
        path = folder / f"preview-{done:06d}.png"
        with _shown(task.modules, ema):
            task.preview(done, path)
        book.picture(done, path)
    if isinstance(task, Scored) and due(config.score_every):
        with _shown(task.modules, ema):
            numbers = task.scores()
        book.scores(done, numbers)


@contextmanager
def _shown(modules: Mapping[str, nn.Module], ema: Ema) -> Iterator[None]:
    with ema.applied(), torch.no_grad():
        for module in modules.values():
            module.eval()
        yield
        for module in modules.values():
            module.train()


def _keep(
    task: Task, adam: Optimiser, ema: Ema, folder: Path, recipe: dict[str, Any], step: int, accelerator: Accelerator
) -> None:
    state = _agree(task, accelerator) if accelerator.num_processes > 1 else task.state()
    kept = {
        "recipe": json.dumps(recipe, sort_keys=True),
        "step": step,
        "modules": {name: gathered(module.state_dict()) for name, module in task.modules.items()},
        "ema": gathered(ema.state_dict()),
        "optimiser": gathered(adam.state_dict()),
        "task": state,
    }
    if accelerator.is_main_process:
        save_checkpoint(folder / CHECKPOINT, kept)
    accelerator.wait_for_everyone()  # no process goes on to a stage that reads what is not written yet


def _agree(task: Task, accelerator: Accelerator) -> dict[str, Any]:
    """Give all processes the first one's state: they may have looked at growing data at different times."""
    if accelerator.num_processes == 1:
        return {}
    states: list[Any] = [task.state() if accelerator.is_main_process else None]
    broadcast_object_list(states)
    task.load_state(states[0])
    return dict(states[0])


def _restore(task: Task, adam: Optimiser, ema: Ema, folder: Path, recipe: dict[str, Any]) -> int:
    state = load_checkpoint(folder / CHECKPOINT)
    if state is None:
        return 0
    check_same_recipe(state, recipe, folder / CHECKPOINT)
    for name, module in task.modules.items():
        load_module(module, state["modules"][name])
    ema.load_state_dict(state["ema"])
    load_optimiser(adam, state["optimiser"])
    task.load_state(state["task"])
    return int(state["step"])
