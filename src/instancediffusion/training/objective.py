"""What the denoiser learns: v-prediction on a fixed schedule of 1,000 steps, or whatever its base was trained for.

x_t = a x_0 + s e with a^2 + s^2 = 1; the network predicts v = a e - s x_0 (Salimans and Ho 2022, section 4). At the
noisy end v is the picture and at the clean end the noise, so its error stays of one size over the whole schedule,
where noise prediction says nothing about the picture at the noisy end.

The schedule is Stable Diffusion's "scaled_linear" with a larger end: beta 0.00085 .. 0.02 leaves a_999 = 0.015 where
0.012 leaves 0.068. The small pictures of this model would be readable through the latter (sampling starts from pure
noise, training then never does); an exact zero (Lin et al. 2023) would need a setting in every scheduler, and some
stock ones have none.

An adapter for a base has no choice: it learns the base's own target, v or the noise e, on the base's schedule.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from instancediffusion.errors import SettingsError
from instancediffusion.training.config import DiffusionConfig

TRAIN_STEPS = 1000


def scheduler_config(config: DiffusionConfig) -> dict[str, Any]:
    """Return the settings every stock scheduler shares for this schedule."""
    return {
        "num_train_timesteps": TRAIN_STEPS,
        "beta_start": config.beta_start,
        "beta_end": config.beta_end,
        "beta_schedule": "scaled_linear",
        "prediction_type": "v_prediction",
    }


class Objective:
    """Noising, target and weight of the loss.

    Args:
        config: the schedule and the distribution of steps.
        schedule: settings of a stock scheduler with which a base was trained, instead of `config`'s.

    Raises:
        SettingsError: the base predicts neither noise nor velocity.
    """

    def __init__(self, config: DiffusionConfig, schedule: Mapping[str, Any] | None = None) -> None:
        self.config = config
        self.schedule = dict(scheduler_config(config) if schedule is None else schedule)
        self.prediction = self.schedule.get("prediction_type", "epsilon")
        if self.prediction not in ("epsilon", "v_prediction"):
            raise SettingsError(f"base: it predicts {self.prediction!r}; expected 'epsilon' or 'v_prediction'")
        if schedule is None:
            betas = torch.linspace(config.beta_start**0.5, config.beta_end**0.5, TRAIN_STEPS, dtype=torch.float64) ** 2
            self.alphas_cumprod = (1 - betas).cumprod(0).float()
        else:
            self.alphas_cumprod = DDPMScheduler.from_config(self.schedule).alphas_cumprod.float()

    def timesteps(self, batch: int, generator: torch.Generator) -> Tensor:
        """(B,) int64 in 0..999: 1000 sigmoid(n), n normal (Esser et al. 2024, section 3.1), or all alike."""
        steps = len(self.alphas_cumprod)
        if self.config.timesteps == "uniform":
            return torch.randint(steps, (batch,), generator=generator)
        normal = torch.randn(batch, generator=generator) * self.config.logit_std + self.config.logit_mean
        return (normal.sigmoid() * steps).long().clamp(0, steps - 1)

    def noised(self, x0: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return x_t and what is to be predicted, shaped as `x0` (B, C, h, w)."""
        alpha = self.alphas_cumprod[t].sqrt().view(-1, 1, 1, 1)
        sigma = (1 - self.alphas_cumprod[t]).sqrt().view(-1, 1, 1, 1)
        target = noise if self.prediction == "epsilon" else alpha * noise - sigma * x0
        return alpha * x0 + sigma * noise, target

    def weights(self, covered: Tensor) -> Tensor:
        """Weights of the error by latent pixel, 1 on average of the batch: full pictures count more than empty ones.

        Args:
            covered: (B, h, w) fraction of each latent pixel that objects cover.
        """
        weight = 1 + self.config.object_weight * covered
        return weight / weight.mean()

    def loss(self, predicted: Tensor, target: Tensor, t: Tensor, weights: Tensor | None = None) -> Tensor:
        """Mean squared error, weighted by timestep if `min_snr_gamma` is on, and by latent pixel with `weights`.

        Args:
            predicted: (B, C, h, w).
            target: (B, C, h, w), what it is to be.
            t: (B,) steps.
            weights: (B, h, w) on the same device; None weighs all latent pixels alike.
        """
        error = (predicted.float() - target).square().mean(1)
        error = (error if weights is None else error * weights).flatten(1).mean(1)
        if self.config.min_snr_gamma:
            signal = self.alphas_cumprod[t]
            snr = signal / (1 - signal)
            whole = snr if self.prediction == "epsilon" else snr + 1
            error = error * (snr.clamp(max=self.config.min_snr_gamma) / whole).to(error.device)
        return error.mean()
