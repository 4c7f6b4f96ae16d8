"""Pictures to go on from: image to image (SDEdit, Meng et al. 2022) and inpainting by known latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from instancediffusion.sampling.denoiser import Denoiser
from instancediffusion.sampling.schedulers import Scheduler, calls_of_steps


@dataclass(frozen=True)
class Start:
    """What a run starts from beside noise.

    Attributes:
        latents: (B, C, H, W) clean latents of the pictures.
        step: the first step that is made; the pictures get the noise of that step. 0 = all steps are made.
        redrawn: (B, 1, H, W), 0..1: 0 = the latent is put back to the picture's, with noise of the moment, after each
            step; 1 = it is sampled anew. None = all of the picture may change.
        channels: (B, E, H, W) what the network sees beside the latents (an inpainting UNet: mask and masked picture).
    """

    latents: Tensor
    step: int = 0
    redrawn: Tensor | None = None
    channels: Tensor | None = None

    def noisy(self, scheduler: Scheduler, noise: Tensor, timestep: Tensor) -> Tensor:
        """The latents that the first step is made from; with a mask and all steps, pure noise, as in diffusers."""
        if self.redrawn is not None and self.step == 0:
            return noise * float(scheduler.init_noise_sigma)
        return with_noise(scheduler, self.latents.to(noise), noise, timestep)

    def seen_by(self, denoiser: Denoiser, images: Sequence[int]) -> Denoiser:
        """The denoiser of a batch that sees, (T, C + E, H, W), the latents (T, C, H, W) and their images' channels."""
        beside, rows = self.channels, list(images)
        if beside is None:
            return denoiser
        return lambda sample, timestep, step: denoiser(torch.cat([sample, beside.to(sample)[rows]], 1), timestep, step)

    def put_back(
        self, latents: Tensor, images: Sequence[int], scheduler: Scheduler, noise: Tensor, timestep: Tensor | None
    ) -> Tensor:
        """Put what is kept of images into latents (T, C, H, W) of them.

        Args:
            latents: at the noise level of `timestep`.
            images: the image of each batch element.
            scheduler: of the batch.
            noise: (B, C, H, W) the start noise.
            timestep: of the next network call; None after the last.
        """
        if self.redrawn is None:
            return latents
        rows = list(images)
        known = self.latents.to(latents)[rows]
        if timestep is not None:
            known = with_noise(scheduler, known, noise[rows], timestep)
        drawn = self.redrawn.to(latents)[rows]
        return drawn * latents + (1 - drawn) * known


def with_noise(scheduler: Scheduler, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """Clean latents at the noise level of a timestep of the run."""
    result: Tensor = scheduler.add_noise(clean, noise.to(clean), timestep.reshape(1).to(clean.device))
    return result


def steps_made(strength: float, num_steps: int) -> int:
    """The number of steps, from the end, that a strength of 0 to 1 makes (at least one), truncated as in diffusers."""
    return max(1, min(int(num_steps * strength), num_steps))


def begin_at(scheduler: Scheduler, num_steps: int, first: int) -> tuple[Tensor, tuple[int, ...]]:
    """Make a scheduler, whose timesteps are set, begin at a later step.

    Args:
        scheduler: without history.
        num_steps: steps of the whole schedule.
        first: the first step that is made.

    Returns:
        The timesteps of the network calls that are left, and the step of each, counted from 0.
    """
    steps = calls_of_steps(scheduler, num_steps)
    if first == 0:
        return scheduler.timesteps, steps
    call = steps.index(first)
    timesteps = scheduler.timesteps[call:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(call)
    if scheduler.config.get("skip_prk_steps") and len(steps) == num_steps + 1:
        # PNDM makes the first step of a run in two calls, and so also that of a run that begins later.
        left = num_steps - first
        return torch.cat([timesteps[:2], timesteps[1:]]), (0, *range(left)) if left > 1 else (0,)
    return timesteps, tuple(step - first for step in steps[call:])
