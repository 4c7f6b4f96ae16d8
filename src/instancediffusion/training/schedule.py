"""What a run does at each of its steps: at which size, with how many pictures, at which learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

from instancediffusion.errors import SettingsError
from instancediffusion.training.config import OptimiserConfig, ResolutionStage


class Schedule:
    """One run of the optimiser, cut into stages or not.

    Steps are counted over the whole run. So is the cosine of the learning rate: a stage changes the peak it belongs to,
    and warms up again, since the running moments of its predecessor's gradients are not its own.

    Args:
        config: the run.
        stages: sizes to learn at; see `ResolutionStage`.
    """

    def __init__(self, config: OptimiserConfig, stages: Sequence[ResolutionStage] = ()) -> None:
        self.config, self.stages = config, tuple(stages)

    def stage(self, step: int) -> ResolutionStage | None:
        """The stage that step belongs to; None in a run without stages."""
        return next((stage for stage in reversed(self.stages) if stage.from_step <= step), None)

    def batch_size(self, step: int) -> int:
        """Pictures of that step, over all processes."""
        stage = self.stage(step)
        return stage.batch_size if stage is not None and stage.batch_size else self.config.batch_size

    def pictures(self, steps: int) -> int:
        """Pictures trained on in the first `steps` steps."""
        starts = [stage.from_step for stage in self.stages] or [0]
        ends = [*starts[1:], steps]
        return sum(
            max(0, min(end, steps) - start) * self.batch_size(start) for start, end in zip(starts, ends, strict=True)
        )

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to `final_rate` of the peak at the run's last step."""
        config, stage = self.config, self.stage(step)
        first, peak = (0, config.learning_rate) if stage is None else (stage.from_step, stage.learning_rate)
        warm = min(1.0, (step - first + 1) / max(1, config.warmup))
        progress = min(1.0, max(0.0, (step - config.warmup) / max(1, config.steps - config.warmup)))
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return (peak or config.learning_rate) * warm * (config.final_rate + (1 - config.final_rate) * cosine)

    def check_shares(self, processes: int, draws: int = 1) -> None:
        """Check that every process gets an equal part of every batch: gradients are averaged over processes.

        Raises:
            SettingsError: a batch cannot be divided.
        """
        for start in [stage.from_step for stage in self.stages] or [0]:
            scenes = self.batch_size(start) // draws
            if scenes % processes:
                size = self.batch_size(start)
                raise SettingsError(
                    f"batch_size = {size}: {scenes} scenes cannot be shared equally by {processes} processes; use a "
                    f"batch_size that is a multiple of {processes * draws}, or another number of processes"
                )
