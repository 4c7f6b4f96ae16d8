"""The loop all stages share: step, clip, average, log, keep.

A stage hands in a `Task`; everything that makes a run resumable is here, once. The random numbers of step k are drawn
from a generator seeded with (seed, k): a run that is killed and started again therefore makes the same steps, bit for
bit on one process.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from instancediffusion.errors import CheckpointError
from instancediffusion.training.checkpoint import load_checkpoint, save_checkpoint
from instancediffusion.training.config import OptimiserConfig
from instancediffusion.training.ema import Ema

log = logging.getLogger("instancediffusion.training")

CHECKPOINT = "checkpoint.pt"


class Task(Protocol):
    """What a stage trains."""

    modules: Mapping[str, nn.Module]
    """The trained modules by name."""

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Return the loss and numbers to log; must depend on nothing but weights, data, `step` and `state()`."""
        ...

    def preview(self, step: int, path: Path) -> None:
        """Write a picture of what the modules can do now."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what else the steps depend on (called when a checkpoint is written; may look for new data)."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""
        ...


def step_seed(seed: int, step: int, purpose: int = 0) -> int:
    """Return the seed of one step's random numbers; seeds of different steps, runs and purposes are unrelated."""
    return int(np.random.SeedSequence([seed, step, purpose]).generate_state(2, np.uint32).view(np.uint64)[0] >> 1)


def learning_rate(config: OptimiserConfig, step: int) -> float:
    """Linear warm-up, then half a cosine down to `final_rate` of the peak at the last step."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    progress = min(1.0, max(0.0, (step - config.warmup) / max(1, config.steps - config.warmup)))
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return config.learning_rate * warm * (config.final_rate + (1 - config.final_rate) * cosine)


def optimiser(modules: Mapping[str, nn.Module], config: OptimiserConfig) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices and kernels only: norms, biases and gates would shrink what they scale."""
    parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    betas = (config.betas[0], config.betas[1])
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=True)


def fit(
    task: Task, config: OptimiserConfig, folder: Path, recipe: dict[str, Any], *, stop_after: int | None = None
) -> Ema:
    """Train until `config.steps`, continuing from the folder's checkpoint if there is one.

    Args:
        task: the stage.
        config: the run.
        folder: where checkpoint, metrics and previews go.
        recipe: kept in the checkpoint; a run is not continued with another one.
        stop_after: end after this many steps of this call, with a checkpoint (to hand the machine over).

    Returns:
        The running mean of the weights; the modules hold the last step's.

    Raises:
        CheckpointError: the folder's checkpoint is unreadable or belongs to another recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parameters = [p for module in task.modules.values() for p in module.parameters() if p.requires_grad]
    adam = optimiser(task.modules, config)
    ema = Ema(task.modules, config.ema_decay)
    first = _restore(task, adam, ema, folder, recipe)
    last = config.steps if stop_after is None else min(config.steps, first + stop_after)
    meter = _Meter(config, folder, first)
    for step in range(first, last):
        for group in adam.param_groups:
            group["lr"] = learning_rate(config, step)
        loss, numbers = task.loss(step)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, config.grad_clip)
        if torch.isfinite(norm):  # one overflowing step must not end a run
            adam.step()
        ema.update()
        meter.add(step, float(loss.detach()), float(norm), numbers)
        done = step + 1
        if done % config.checkpoint_every == 0 or done == last:
            _keep(task, adam, ema, folder, recipe, done)
        if config.preview_every and (done % config.preview_every == 0 or done == config.steps):
            with ema.applied(), torch.no_grad():
                for module in task.modules.values():
                    module.eval()
                task.preview(done, folder / f"preview-{done:06d}.png")
                for module in task.modules.values():
                    module.train()
    return ema


def _keep(task: Task, adam: torch.optim.AdamW, ema: Ema, folder: Path, recipe: dict[str, Any], step: int) -> None:
    state = {
        "recipe": json.dumps(recipe, sort_keys=True),
        "step": step,
        "modules": {name: module.state_dict() for name, module in task.modules.items()},
        "ema": ema.state_dict(),
        "optimiser": adam.state_dict(),
        "task": task.state(),
    }
    save_checkpoint(folder / CHECKPOINT, state)


def _restore(task: Task, adam: torch.optim.AdamW, ema: Ema, folder: Path, recipe: dict[str, Any]) -> int:
    state = load_checkpoint(folder / CHECKPOINT)
    if state is None:
        return 0
    _same_recipe(json.loads(state["recipe"]), json.loads(json.dumps(recipe)), folder / CHECKPOINT)
    for name, module in task.modules.items():
        module.load_state_dict(state["modules"][name])
    ema.load_state_dict(state["ema"])
    adam.load_state_dict(state["optimiser"])
    task.load_state(state["task"])
    return int(state["step"])


def _same_recipe(kept: dict[str, Any], asked: dict[str, Any], path: Path) -> None:
    """Refuse to continue with other settings, except those that change only how long and how often."""
    free = {"steps", "checkpoint_every", "log_every", "preview_every"}

    def differing(a: Any, b: Any, name: str) -> list[str]:
        if isinstance(a, dict) and isinstance(b, dict):
            # Only what this stage depends on is asked for; what else an older checkpoint tells is of no concern.
            keys = [k for k in b if k not in free]
            return [d for k in keys for d in differing(a.get(k), b.get(k), f"{name}.{k}" if name else k)]
        return [] if a == b else [name]

    if found := differing(kept, asked, ""):
        raise CheckpointError(
            f"{path} was made with other settings of {', '.join(found)}; use another run folder or the old recipe"
        )


class _Meter:
    """Writes a line of numbers now and then, to the log and to metrics.jsonl."""

    def __init__(self, config: OptimiserConfig, folder: Path, first: int) -> None:
        self._config, self._path = config, folder / "metrics.jsonl"
        self._since, self._steps, self._mean = time.monotonic(), 0, math.nan
        self._rate = math.nan
        if first:
            log.info("continuing at step %d of %d", first, config.steps)

    def add(self, step: int, loss: float, norm: float, numbers: dict[str, float]) -> None:
        self._mean = loss if math.isnan(self._mean) else 0.98 * self._mean + 0.02 * loss
        self._steps += 1
        done = step + 1
        if done % self._config.log_every and done != self._config.steps:
            return
        seconds = (time.monotonic() - self._since) / self._steps
        self._rate = seconds if math.isnan(self._rate) else 0.7 * self._rate + 0.3 * seconds
        self._since, self._steps = time.monotonic(), 0
        pictures = done * self._config.batch_size
        record = {"step": done, "pictures": pictures, "loss": loss, "loss_mean": self._mean, "grad_norm": norm}
        record |= {"learning_rate": learning_rate(self._config, step), "seconds_per_step": seconds, **numbers}
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({k: round(v, 6) for k, v in record.items()}) + "\n")
        left = (self._config.steps - done) * self._rate / 60
        extra = " ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        log.info(
            "step %d/%d pictures %d loss %.4f mean %.4f norm %.2f %s | %.1f pictures/s, %.0f min left",
            *(done, self._config.steps, pictures, loss, self._mean, norm, extra),
            *(self._config.batch_size / seconds, left),
        )
