"""Stock diffusers schedulers by name, and what a sampling loop has to know about them."""

from __future__ import annotations

import copy
import difflib
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from instancediffusion.errors import SettingsError

# A diffusers scheduler. The classes share an interface by custom, not by type.
Scheduler = Any

SCHEDULERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "plms": ("PNDMScheduler", {"skip_prk_steps": True}),
    # The class clips to -1..1 unless told not to; latents are not pictures and go beyond.
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "lcm": ("LCMScheduler", {}),
}
"""Name -> class in diffusers and the options that make it what the name says. "plms" and "pndm" are the same."""


def build_scheduler(name: str | None, model_scheduler: Scheduler) -> Scheduler:
    """A scheduler of the named kind for the noise schedule the model was trained with.

    Args:
        name: one of `SCHEDULERS`, or None for a copy of the model's own.
        model_scheduler: the model's own scheduler; it is not changed.

    Returns:
        A new scheduler without history.

    Raises:
        SettingsError: the name is unknown; the message lists the names and the nearest one.
    """
    if name is None:
        return copy.deepcopy(model_scheduler)
    check_scheduler_name(name)
    import diffusers

    class_name, options = SCHEDULERS[name]
    cls = getattr(diffusers, class_name)
    config = dict(model_scheduler.config)
    if config.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in inspect.signature(cls).parameters:
        # The class cannot rescale by itself. It also divides by the signal's share, which is 0 at the last training
        # step: "leading" spacing never visits that one.
        config |= {"trained_betas": zero_snr_betas(model_scheduler.betas).tolist(), "timestep_spacing": "leading"}
    return cls.from_config(config, **options)


def check_scheduler_name(name: str) -> None:
    """Raise `SettingsError` unless the name is one of `SCHEDULERS`."""
    if name not in SCHEDULERS:
        near = difflib.get_close_matches(name.lower(), SCHEDULERS, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise SettingsError(f"scheduler: {name!r} is not one of {', '.join(SCHEDULERS)}{hint}")


def zero_snr_betas(betas: Tensor) -> Tensor:
    """Betas whose last step holds no signal (Lin et al. 2023, algorithm 1). Unchanged if that is so already."""
    root = torch.cumprod(1 - betas.double(), 0).sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    signal = root**2
    kept = torch.cat([signal[:1], signal[1:] / signal[:-1]])
    return (1 - kept).float()


def calls_of_steps(scheduler: Scheduler, num_steps: int) -> tuple[int, ...]:
    """Step that each network call belongs to, for a scheduler whose timesteps are set.

    Most schedulers call the network once a step. PNDM (without its Runge-Kutta start) calls it twice in the first
    step, and second-order single-step solvers twice in nearly all.

    Returns:
        One step index for each of `scheduler.timesteps`, rising from 0 to `num_steps` - 1.
    """
    calls = len(scheduler.timesteps)
    if scheduler.config.get("skip_prk_steps") and calls == num_steps + 1:
        return (0, *range(num_steps))
    return tuple(call * num_steps // calls for call in range(calls))


def takes_generator(scheduler: Scheduler) -> bool:
    """Whether the scheduler's step may draw noise, and so wants a generator."""
    return "generator" in inspect.signature(scheduler.step).parameters


def forget_sample(scheduler: Scheduler) -> None:
    """Make a scheduler go on from a sample that it did not compute.

    Its history of predictions stays. But a predictor-corrector (UniPC, SA) would redo its last step from the
    sample it remembers, and so throw away the new one: without that memory it leaves this one correction out.
    """
    if getattr(scheduler, "last_sample", None) is not None:
        scheduler.last_sample = None


def clean_estimate(scheduler: Scheduler, model_input: Tensor, prediction: Tensor, timestep: Tensor) -> Tensor:
    """The clean latents that a prediction stands for.

    Source: DDIM (Song et al. 2021), equation 9; for velocities Salimans and Ho 2022, appendix D.

    Args:
        scheduler: gives alphas_cumprod and what the model predicts.
        model_input: the sample as the network saw it: sqrt(a) x0 + sqrt(1 - a) noise.
        prediction: the (guided) output of the network, of the same shape.
        timestep: 0-dim; between two training steps the schedule is interpolated.
    """
    # On the CPU: not every device has double precision.
    alphas = scheduler.alphas_cumprod.to("cpu", torch.float64)
    position = timestep.to("cpu", torch.float64).clamp(0, len(alphas) - 1)
    low = position.floor().long()
    high = (low + 1).clamp(max=len(alphas) - 1)
    signal = torch.lerp(alphas[low], alphas[high], position - low).clamp(min=1e-8)
    root_signal, root_noise = float(signal.sqrt()), float((1 - signal).sqrt())
    kind = scheduler.config.get("prediction_type", "epsilon")
    if kind == "v_prediction":
        return root_signal * model_input - root_noise * prediction
    if kind == "sample":
        return prediction
    return (model_input - root_noise * prediction) / root_signal
