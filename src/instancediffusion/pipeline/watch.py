"""What the user sees of a run while it goes on, and how long its stages took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from PIL import Image
from torch import Tensor

from instancediffusion.pipeline.decoding import preview_latents, to_images
from instancediffusion.pipeline.steering import Steering
from instancediffusion.sampling import SampleResult, StepReport

StepCallback = Callable[[Any, int, Any, dict[str, Any]], Mapping[str, Any] | None]
PreviewCallback = Callable[[int, list[Image.Image]], None]


class Watch:
    """Progress, callbacks and clocks of one pipeline call.

    Args:
        pipeline: the pipeline, handed on to the callback.
        callback: diffusers' `callback_on_step_end`, or None.
        tensors: names of what the callback is handed, of `steering.CALLBACK_TENSORS`.
        preview: called with small pictures of the model's current estimate, or None.
        preview_every: steps between two previews.
    """

    def __init__(
        self,
        pipeline: Any,
        callback: StepCallback | None,
        tensors: Sequence[str],
        preview: PreviewCallback | None,
        preview_every: int,
    ) -> None:
        self.pipeline, self.callback, self.preview, self.preview_every = pipeline, callback, preview, preview_every
        self._tensors = tensors
        self.bar: Any = None
        self.rows: float = 0
        self.stopped = False
        self._reported: float = 0
        self._start = time.perf_counter()
        self._times: dict[str, float] = {}

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        start = time.perf_counter()
        yield
        self._times[stage] = self._times.get(stage, 0.0) + time.perf_counter() - start

    def step(self, report: StepReport, steering: Steering, rows: float) -> Tensor | None:
        """Observe a step; see `sampling.Observer`. The progress bar counts NFE, so that its ETA holds.

        Args:
            report: of the step.
            steering: what the callback may change.
            rows: NFE of these images so far, in batch elements.
        """
        if self.bar is not None:
            self.bar.update(rows - self._reported)
        self._reported = rows
        if self.preview is not None and (report.step + 1) % self.preview_every == 0:
            self.preview(report.step, to_images(preview_latents(self.pipeline.vae, report.estimate())))
        if self.callback is None:
            return None
        # Runs in other threads may have left their scale there.
        self.pipeline._guidance_scale = steering.scale
        handed = steering.tensors(self._tensors, report.latents)
        answer = self.callback(self.pipeline, report.step, report.timestep, dict(handed))
        return steering.take(handed, answer or {}, self.pipeline._guidance_scale)

    def end_group(self, result: SampleResult, rows: float) -> None:
        """Note the end of the images of one size, which took `rows` NFE."""
        self.rows += rows
        self.stopped |= result.stopped
        self._reported = 0

    def finish(self) -> dict[str, float]:
        """Return seconds by stage, and in total."""
        return {**self._times, "total": time.perf_counter() - self._start}
