"""Stock diffusers schedulers by name, and what a sampling loop has to know about them."""

from __future__ import annotations

import copy
import difflib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from instancediffusion.choices import SCHEDULERS, scheduler_name
from instancediffusion.errors import SettingsError
from instancediffusion.sampling.flow_matching import FlowMatching, flow_matching
from instancediffusion.sampling.noise import copy_generator

# A diffusers scheduler. The classes share an interface by custom, not by type.
Scheduler = Any

_FITTING = ("DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler")
_OTHER_MODELS = {
    "EDM": "is made for models with the preconditioning of EDM",
    "CosineDPM": "is made for models with the preconditioning of EDM",
    "CogVideoX": "is made for the video model CogVideoX",
    "CMStochasticIterative": "is made for consistency models",
    "ConsistencyDecoder": "is made for a decoder of pictures",
    "UnCLIP": "is made for unCLIP",
    "RePaint": "needs a picture to go on from",
}
"""By how the names of classes begin: why schedulers that have the right methods do not fit."""


@dataclass(frozen=True)
class Steps:
    """The steps of a run: so many, spaced as the scheduler does, or at stated noise levels.

    Attributes:
        count: how many, where neither of the others is given.
        timesteps: training steps (0 to 999, falling), one for each step.
        sigmas: noise levels (falling), one for each step, and the last one's end.
    """

    count: int
    timesteps: tuple[int, ...] | None = None
    sigmas: tuple[float, ...] | None = None

    def set_on(self, scheduler: Scheduler, device: torch.device | str | None = None) -> int:
        """Set them on a scheduler.

        Returns:
            The number of steps.

        Raises:
            SettingsError: the scheduler takes no such list, or not this one.
        """
        stated = {"timesteps": self.timesteps, "sigmas": self.sigmas}
        given = {name: list(values) for name, values in stated.items() if values is not None}
        if not given:
            scheduler.set_timesteps(self.count, device=device)
            return self.count
        (name,) = given
        if name not in inspect.signature(scheduler.set_timesteps).parameters:
            raise SettingsError(
                f"{name}: {type(scheduler).__name__} takes none; give num_inference_steps, or use another scheduler"
            )
        try:
            scheduler.set_timesteps(**given, device=device)
        except ValueError as error:
            raise SettingsError(f"{name}: {type(scheduler).__name__} refuses them ({error})") from error
        return int(scheduler.num_inference_steps or len(given[name]))


def build_scheduler(name: str | None, model_scheduler: Scheduler, *, flow: bool = False) -> Scheduler:
    """A scheduler of the named kind for the noise schedule the model was trained with.

    Args:
        name: one of `SCHEDULERS`, or None for a copy of the model's own.
        model_scheduler: the model's own scheduler; it is not changed.
        flow: the model was trained by flow matching; see `flow_matching`.

    Returns:
        A new scheduler without history.

    Raises:
        SettingsError: the name is unknown (the message lists the names and the nearest one), its class needs a
            library that is not installed, or the model's own scheduler is not for models of this kind.
    """
    if flow:
        return flow_matching(name, model_scheduler)
    if name is None:
        check_scheduler(model_scheduler)
        return copy.deepcopy(model_scheduler)
    check_scheduler_name(name)
    import diffusers

    kind = SCHEDULERS[scheduler_name(name)]
    cls: Any = getattr(diffusers, kind.scheduler) if isinstance(kind.scheduler, str) else kind.scheduler
    if not hasattr(cls, "step"):  # what stands in for a class whose library is missing
        raise SettingsError(
            f"scheduler: {name!r} needs {' and '.join(cls._backends)}; pip install 'instancediffusion[adapters]'"
        )
    config = dict(model_scheduler.config)
    if config.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in inspect.signature(cls).parameters:
        # The class cannot rescale by itself. It also divides by the signal's weight, which is 0 at the last training
        # step: "leading" spacing never visits that one.
        config |= {"trained_betas": zero_snr_betas(model_scheduler.betas).tolist(), "timestep_spacing": "leading"}
    scheduler = cls.from_config(config, **kind.options)
    keep_latents(scheduler)
    return scheduler


def check_scheduler_name(name: str) -> None:
    """Raise `SettingsError` unless the name is one of `SCHEDULERS`."""
    if scheduler_name(name) not in SCHEDULERS:
        near = difflib.get_close_matches(name.lower(), SCHEDULERS, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise SettingsError(f"scheduler: {name!r} is not one of {', '.join(SCHEDULERS)}{hint}")


def check_scheduler(scheduler: Scheduler) -> None:
    """Raise `SettingsError`, with the reason, for a scheduler that is not for models that predict noise or velocity."""
    name = type(scheduler).__name__
    fault = _misfit(scheduler, name)
    if fault:
        raise SettingsError(f"scheduler: {name} {fault}; use another, such as {', '.join(_FITTING)}")


def _misfit(scheduler: Scheduler, name: str) -> str:
    config = getattr(scheduler, "config", {})
    if config.get("use_flow_sigmas") or "flow" in str(config.get("prediction_type")) or "Flow" in name:
        return "is for flow matching, and this model was trained to predict noise or velocity"
    for start, reason in _OTHER_MODELS.items():
        if name.startswith(start):
            return reason
    if "Inverse" in name:
        return "goes from a picture to noise"
    step = getattr(scheduler, "step", None)
    taken = list(inspect.signature(step).parameters) if callable(step) else []
    needed = ("alphas_cumprod", "init_noise_sigma", "scale_model_input", "set_timesteps")
    if taken[:3] != ["model_output", "timestep", "sample"] or not all(hasattr(scheduler, part) for part in needed):
        return "is not for models that predict noise or velocity"
    if config.get("prediction_type", "epsilon") not in ("epsilon", "v_prediction", "sample"):
        return f"is for models that predict {config['prediction_type']!r}"
    return ""


def keep_latents(scheduler: Scheduler) -> None:
    """Write into a scheduler's config that it is not to clip samples: latents are no pictures and go beyond -1..1.

    Every other scheduler that is built `from_config` of this one then knows it, too, and so does a saved folder.
    """
    config = getattr(scheduler, "config", None)
    if config is None or config.get("clip_sample") is False or "Flow" in type(scheduler).__name__:
        return
    scheduler.register_to_config(clip_sample=False)
    # What stands there was the class's default is left out by `from_config`.
    defaults = [name for name in config.get("_use_default_values", ()) if name != "clip_sample"]
    scheduler.register_to_config(_use_default_values=defaults)


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


def step_options(scheduler: Scheduler, eta: float) -> dict[str, float]:
    """What to hand to each `step` beside the prediction."""
    return {"eta": eta} if "eta" in inspect.signature(scheduler.step).parameters else {}


def order_option(scheduler: Scheduler) -> dict[str, int]:
    """The order of the next step, for a scheduler (LMS) that takes it from its position in the schedule.

    A run that begins later in the schedule has fewer predictions behind it than that position would mean.
    """
    if "order" not in inspect.signature(scheduler.step).parameters:
        return {}
    return {"order": min(len(scheduler.derivatives) + 1, 4)}


def seed_noise(scheduler: Scheduler, generators: Sequence[torch.Generator], offsets: Sequence[int]) -> None:
    """Seed a scheduler that makes its noise without a generator (DPMSolverSDE), unless its config does.

    Args:
        scheduler: of a batch of trajectories.
        generators: one for each batch element decides its seed; they are not advanced.
        offsets: one for each batch element, different for images that share a generator.
    """
    if not hasattr(scheduler, "noise_sampler_seed"):
        return
    configured = scheduler.noise_sampler_seed
    if configured is not None:
        scheduler.noise_sampler_seed = [configured] * len(generators)
        return
    drawn = [int(torch.randint(2**62, (1,), generator=copy_generator(own))) for own in generators]
    scheduler.noise_sampler_seed = [seed + offset for seed, offset in zip(drawn, offsets, strict=True)]


def steps_by_row(scheduler: Scheduler) -> bool:
    """Whether a batch is stepped so that each element is what it would be by itself: true of all of diffusers'.

    What a scheduler from elsewhere does with a batch, and with a list of generators, is not known.
    """
    return str(type(scheduler).step.__module__).startswith("diffusers.")


def remembers_samples(scheduler: Scheduler) -> bool:
    """Whether `forget_sample` has something to forget."""
    return hasattr(scheduler, "last_sample") or hasattr(scheduler, "order_list")


def forget_sample(scheduler: Scheduler) -> None:
    """Make a scheduler go on from a sample that it did not compute.

    Its history of predictions stays. But a predictor-corrector (UniPC, SA) would redo its last step from the
    sample it remembers, and so throw away the new one: without that memory it leaves this one correction out. And a
    single-step solver (DPM-Solver-2S) takes the second call of a pair from the sample of the first: it starts a new
    pair instead.
    """
    if getattr(scheduler, "last_sample", None) is not None:
        scheduler.last_sample = None
    orders, index = getattr(scheduler, "order_list", None), getattr(scheduler, "step_index", None)
    if orders is not None and index is not None and index < len(orders) and orders[index] > 1:
        behind, orders = orders[index] - 1, list(orders)
        while index < len(orders) and orders[index] > behind:
            orders[index] -= behind
            index += 1
        scheduler.order_list = orders


def clean_estimate(scheduler: Scheduler, model_input: Tensor, prediction: Tensor, timestep: Tensor) -> Tensor:
    """The clean latents that a prediction stands for.

    Source: DDIM (Song et al. 2021), equation 9; for velocities Salimans and Ho 2022, appendix D.

    Args:
        scheduler: gives alphas_cumprod and what the model predicts.
        model_input: the sample as the network saw it: sqrt(a) x0 + sqrt(1 - a) noise.
        prediction: the (guided) output of the network, of the same shape.
        timestep: 0-dim; between two training steps the schedule is interpolated.
    """
    if isinstance(scheduler, FlowMatching):
        return scheduler.clean(model_input, prediction, timestep)
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
