"""The sampling loop: noise in, latents out, over any denoiser and any diffusers scheduler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from instancediffusion.sampling.denoiser import Denoiser
from instancediffusion.sampling.schedulers import Scheduler, calls_of_steps, takes_generator


@dataclass(frozen=True)
class Call:
    """One call of the denoiser in a run.

    Attributes:
        timestep: 0-dim, the noise level it is made at.
        step: index of the step it belongs to, from 0; some schedulers call twice in a step.
        ends_step: whether it is the last of its step.
    """

    timestep: Tensor
    step: int
    ends_step: bool = True


@dataclass(frozen=True, eq=False)
class Moment:
    """Where a run is after one call.

    Attributes:
        call: the call.
        seen: (T, C, H, W) the input of the denoiser.
        predicted: (T, C, H, W) its output.
        latents: (T, C, H, W) the latents that the scheduler made of it.
    """

    call: Call
    seen: Tensor
    predicted: Tensor
    latents: Tensor


def calls_of(timesteps: Tensor, steps: Sequence[int]) -> list[Call]:
    """The calls of a run at some timesteps, of which each belongs to a step."""
    following = [*steps[1:], -1]
    return [Call(t, own, own != after) for t, own, after in zip(timesteps, steps, following, strict=True)]


def sample(
    denoiser: Denoiser,
    scheduler: Scheduler,
    noise: Tensor,
    *,
    calls: Sequence[Call] | None = None,
    generator: torch.Generator | list[torch.Generator] | None = None,
    callback: Callable[[Moment], Tensor | None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Tensor:
    """Denoise: x <- step(D(x, t), t, x) at one timestep after the other.

    Args:
        denoiser: D; what it is conditioned on and guided by is its own affair.
        scheduler: a diffusers scheduler, or what has its `scale_model_input` and `step`. Its timesteps are set, and its
            history is made here.
        noise: (T, C, H, W) standard normal; with `calls`, the latents at the noise level of the first of them.
        calls: the calls to make; None = all of the scheduler's timesteps.
        generator: for schedulers that sample noise, or one for each batch element.
        callback: called after each call; a tensor it returns replaces the latents.
        should_stop: asked before each call; True ends the run there.

    Returns:
        (T, C, H, W) the latents.
    """
    latents = noise
    if calls is None:
        latents = noise * float(scheduler.init_noise_sigma)
        steps = calls_of_steps(scheduler, int(scheduler.num_inference_steps or len(scheduler.timesteps)))
        calls = calls_of(scheduler.timesteps, steps)
    options: dict[str, Any] = {"generator": generator} if generator and takes_generator(scheduler) else {}
    for call in calls:
        if should_stop is not None and should_stop():
            break
        seen = scheduler.scale_model_input(latents, call.timestep)
        predicted = denoiser(seen, call.timestep, call.step)
        latents = scheduler.step(predicted, call.timestep, latents, **options).prev_sample
        changed = None if callback is None else callback(Moment(call, seen, predicted, latents))
        latents = latents if changed is None else changed
    return latents
