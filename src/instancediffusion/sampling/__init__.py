"""Sampling: a loop over a denoiser and a diffusers scheduler; guidance round denoisers; the Multi-instance Sampler.

`sample` is the loop; it knows neither scenes nor guidance. `ClassifierFreeGuidance` and `OrderGuidance` are denoisers
round denoisers; `sample_multi_instance` runs the loop over whole scenes and per-instance branches.
"""

from instancediffusion.choices import SCHEDULERS, SchedulerKind, register_scheduler
from instancediffusion.sampling.denoiser import Branch, Denoiser, Network
from instancediffusion.sampling.grounding import grounding_schedule, steps_in_fraction
from instancediffusion.sampling.guidance import (
    ClassifierFreeGuidance,
    GuidedDenoiser,
    NegativeCaptions,
    OrderGuidance,
    Predictions,
    chunk_bounds,
    guide,
    is_guided,
)
from instancediffusion.sampling.loop import Call, Moment, calls_of, sample
from instancediffusion.sampling.merges import Crop, CropMerge, LastMerge, LayeredMerge, MeanMerge, Merge, Window
from instancediffusion.sampling.multi_instance import (
    Guidance,
    Observer,
    SampleResult,
    StepReport,
    count_rows,
    sample_multi_instance,
)
from instancediffusion.sampling.noise import copy_generator, generators_for, start_noise
from instancediffusion.sampling.schedulers import (
    Scheduler,
    Steps,
    build_scheduler,
    calls_of_steps,
    check_scheduler,
    check_scheduler_name,
    clean_estimate,
    keep_latents,
    zero_snr_betas,
)
from instancediffusion.sampling.start import Start, steps_made
from instancediffusion.sampling.trajectories import Trajectories

__all__ = [
    "SCHEDULERS",
    "Branch",
    "Call",
    "ClassifierFreeGuidance",
    "Crop",
    "CropMerge",
    "Denoiser",
    "Guidance",
    "GuidedDenoiser",
    "LastMerge",
    "LayeredMerge",
    "MeanMerge",
    "Merge",
    "Moment",
    "NegativeCaptions",
    "Network",
    "Observer",
    "OrderGuidance",
    "Predictions",
    "SampleResult",
    "Scheduler",
    "SchedulerKind",
    "Start",
    "StepReport",
    "Steps",
    "Trajectories",
    "Window",
    "build_scheduler",
    "calls_of",
    "calls_of_steps",
    "check_scheduler",
    "check_scheduler_name",
    "chunk_bounds",
    "clean_estimate",
    "copy_generator",
    "count_rows",
    "generators_for",
    "grounding_schedule",
    "guide",
    "is_guided",
    "keep_latents",
    "register_scheduler",
    "sample",
    "sample_multi_instance",
    "start_noise",
    "steps_in_fraction",
    "steps_made",
    "zero_snr_betas",
]
