"""The log of a run: lines on the console and in metrics.jsonl, and curves and pictures for TensorBoard."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from PIL import Image

from instancediffusion.runs import write_atomic
from instancediffusion.training.schedule import Schedule

log = logging.getLogger("instancediffusion.training")

METRICS = "metrics.jsonl"
CURVES = "tensorboard"


class Logbook:
    """Writes numbers now and then; only the first process does.

    Args:
        schedule: of the run.
        folder: where metrics.jsonl and, if TensorBoard is installed, the folder tensorboard go.
        accelerator: of the run; holds the tracker.
        first: step the run starts or continues at. What was written of later steps is dropped: they come again.
    """

    def __init__(self, schedule: Schedule, folder: Path, accelerator: Accelerator, first: int) -> None:
        self._schedule, self._config, self._path = schedule, schedule.config, folder / METRICS
        self._accelerator = accelerator
        self._since, self._steps, self._mean, self._rate = time.monotonic(), 0, math.nan, math.nan
        if not accelerator.is_main_process:
            return
        if self._path.exists():
            lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and _step_of(line) <= first]
            if kept != lines:
                write_atomic(self._path, "".join(kept))
        if first:
            log.info("continuing at step %d of %d", first, self._config.steps)
        if accelerator.log_with:
            accelerator.init_trackers(CURVES, init_kwargs={"tensorboard": {"purge_step": first + 1}})

    def add(self, step: int, loss: float, norm: float, numbers: Mapping[str, float]) -> None:
        """Take down a step; write a line if one is due."""
        self._mean = loss if math.isnan(self._mean) else 0.98 * self._mean + 0.02 * loss
        self._steps += 1
        done = step + 1
        if done % self._config.log_every and done != self._config.steps:
            return
        seconds = (time.monotonic() - self._since) / self._steps
        self._rate = seconds if math.isnan(self._rate) else 0.7 * self._rate + 0.3 * seconds
        self._since, self._steps = time.monotonic(), 0
        if not self._accelerator.is_main_process:
            return
        pictures, pace = self._schedule.pictures(done), self._schedule.batch_size(step) / seconds
        record = {"pictures": pictures, "loss": loss, "loss_mean": self._mean, "grad_norm": norm}
        record |= {"learning_rate": self._schedule.learning_rate(step), "seconds_per_step": seconds}
        self._write(done, {**record, "pictures_per_second": pace, **numbers})
        left = (self._config.steps - done) * self._rate / 60
        extra = " ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        log.info(
            "step %d/%d pictures %d loss %.4f mean %.4f norm %.2f %s | %.1f pictures/s, %.0f min left",
            *(done, self._config.steps, pictures, loss, self._mean, norm, extra, pace, left),
        )

    def scores(self, done: int, numbers: Mapping[str, float]) -> None:
        """Write scores, as a line of their own."""
        if numbers:
            self._write(done, {f"score/{name}": value for name, value in numbers.items()})
            log.info("step %d scores %s", done, " ".join(f"{name} {value:.4g}" for name, value in numbers.items()))

    def picture(self, done: int, path: Path) -> None:
        """Show a picture that was written, if it was."""
        if not self._accelerator.trackers or not path.exists():
            return
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        for tracker in self._accelerator.trackers:
            tracker.log_images({"preview": pixels[None]}, step=done, dataformats="NHWC")

    def close(self) -> None:
        """Finish the curves. The processes stay joined: another stage may follow."""
        for tracker in self._accelerator.trackers:
            tracker.finish()

    def _write(self, done: int, numbers: Mapping[str, float]) -> None:
        record = {"step": done, **{name: round(value, 6) for name, value in numbers.items()}}
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._accelerator.trackers:
            self._accelerator.log(dict(numbers), step=done)


def _step_of(line: str) -> float:
    """The step a line of metrics is about; infinity for a line that a kill has cut."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
