"""Sampling: pure loops over a denoiser and any diffusers scheduler; no networks.

`sample` is the loop; `grounding_schedule`, the merges and `OrderGuidance` are the parts of the method in it.
"""

from instancediffusion.choices import SCHEDULERS, SchedulerKind, register_scheduler
from instancediffusion.sampling.denoiser import Branch, Denoiser, Prediction
from instancediffusion.sampling.grounding import grounding_schedule, steps_in_fraction
from instancediffusion.sampling.guidance import GuidedBatch, chunk_bounds, guide, is_guided
from instancediffusion.sampling.loop import Guidance, Observer, SampleResult, StepReport, count_rows, sample
from instancediffusion.sampling.multi_instance import Crop, CropMerge, LastMerge, LayeredMerge, MeanMerge, Merge, Window
from instancediffusion.sampling.negatives import NegativeCaptions
from instancediffusion.sampling.noise import copy_generator, generators_for, start_noise
from instancediffusion.sampling.order_guidance import OrderGuidance
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

__all__ = [
    "SCHEDULERS",
    "Branch",
    "Crop",
    "CropMerge",
    "Denoiser",
    "Guidance",
    "GuidedBatch",
    "LastMerge",
    "LayeredMerge",
    "MeanMerge",
    "Merge",
    "NegativeCaptions",
    "Observer",
    "OrderGuidance",
    "Prediction",
    "SampleResult",
    "Scheduler",
    "SchedulerKind",
    "Start",
    "StepReport",
    "Steps",
    "Window",
    "build_scheduler",
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
    "start_noise",
    "steps_in_fraction",
    "steps_made",
    "zero_snr_betas",
]
