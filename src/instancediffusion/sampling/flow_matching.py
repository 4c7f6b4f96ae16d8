"""Flow matching (Lipman et al. 2023; Liu et al. 2023): dx / dsigma = v, from noise at sigma 1 to the picture at 0."""

from __future__ import annotations

from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from instancediffusion.errors import SettingsError


class FlowMatching(FlowMatchEulerDiscreteScheduler):
    """The stock scheduler, with what sampling asks of all schedulers: x at sigma is sigma noise + (1 - sigma) x0."""

    init_noise_sigma = 1.0

    def scale_model_input(self, sample: Tensor, timestep: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The network sees the sample as it is."""
        return sample

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Clean samples at the noise level of timesteps of the run."""
        noisy: Tensor = self.scale_noise(original_samples, timesteps, noise)
        return noisy

    def clean(self, sample: Tensor, velocity: Tensor, timestep: Tensor) -> Tensor:
        """The clean sample that a predicted velocity (noise - x0) stands for: x - sigma v."""
        return sample - float(timestep) / self.config.num_train_timesteps * velocity


def flow_matching(name: str | None, model_scheduler: Any) -> FlowMatching:
    """The scheduler of a run of a model that was trained by flow matching.

    Args:
        name: of a scheduler that was asked for; there are none for such models.
        model_scheduler: the model's own; it is not changed.

    Raises:
        SettingsError: a scheduler was asked for, or the model's own is not for flow matching.
    """
    if name is not None:
        raise SettingsError(
            f"scheduler: {name!r} is for models that predict noise or velocity, and this one was trained by flow "
            "matching; leave it out"
        )
    if not isinstance(model_scheduler, FlowMatchEulerDiscreteScheduler):
        raise SettingsError(
            f"scheduler: {type(model_scheduler).__name__} is not for models that were trained by flow matching; use "
            "FlowMatchEulerDiscreteScheduler"
        )
    scheduler: FlowMatching = FlowMatching.from_config(model_scheduler.config)
    return scheduler
