"""What users choose from by name, readable without torch: the command line, studio and library take it from here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

InstanceMaskRule = str
"""The name of a rule of the attention mask."""

INSTANCE_MASK_RULES: dict[str, Any] = dict.fromkeys(("none", "grounding", "full", "visibility", "published"))
"""Rules of the attention mask by name; `conditioning.attention_mask` says what each means, and puts them in.

Ours are named before that module is imported, which loads torch.
"""

MERGE_RULES: dict[str, Any] = dict.fromkeys(("mean", "crop", "layered", "regional"))
"""Merge rules of the Multi-instance Sampler by name; `pipeline.merging.register` puts them in.

Ours are named before that module is imported, which loads torch.
"""

AbsentLocations = Literal["null", "published"]
SegmentationOrder = Literal["area", "published"]
MultiInstanceRule = Literal["none", "published"]
StepRounding = Literal["nearest", "published"]
"""Details of the published inference; `GenerationSettings` says what each means."""

ABSENT_LOCATIONS: tuple[str, ...] = get_args(AbsentLocations)
SEGMENTATION_ORDERS: tuple[str, ...] = get_args(SegmentationOrder)
MULTI_INSTANCE_RULES: tuple[str, ...] = get_args(MultiInstanceRule)
STEP_ROUNDINGS: tuple[str, ...] = get_args(StepRounding)

UNITS = ("pixels", "fractions", "percent", "thousandths")
"""What lengths of a list of boxes may be counted in; thousandths and percent are of the picture's sides."""

BOX_ORDERS = ("xyxy", "xywh", "yxyx", "cxcywh")
"""What the four numbers of a box may be: corners, corner and size, corners with y first, centre and size."""

RETIRED: Mapping[str, str] = {
    "complete_captions": "captions are drawn as they are written, no model completes them any more",
    "place_objects": "prompts are drawn as they are written, nothing predicts locations for their objects any more",
}
"""Settings of the last release that may stand in files and scripts: read with a warning, to be refused by the next."""

_PAG = "perturbed-attention guidance is not offered: it swaps the attention that the instances go through"
_SIZES = "XL is conditioned on the size of the picture, uncropped; other sizes are not offered; leave it out"
_ENSEMBLE = "splitting the schedule between base and refiner is not offered; load_refiner() refines whole pictures"
_AESTHETIC = "it belongs to XL's refiner; load_refiner() takes one, and there it has its own value"
_GLIGEN = (
    "layouts are given as instances; give Instance(caption, box=...), and grounding_fraction for how long they act"
)
_SECOND = "both text encoders of XL read one prompt; for two different ones give prompt_embeds and pooled_prompt_embeds"
_STEPS = "it is deprecated in diffusers and not offered; give callback_on_step_end"

NOT_OFFERED: Mapping[str, str] = {
    "pag_scale": _PAG,
    "pag_adaptive_scale": _PAG,
    "pag_applied_layers": _PAG,
    "enable_pag": _PAG,
    "sag_scale": "self-attention guidance is not offered: it reads the attention that the instances go through",
    "guess_mode": "a ControlNet without a prompt is not offered; give an empty prompt and guidance_scale=1",
    "control_mode": "ControlNets of several kinds in one (Union) are not offered; give one for each kind",
    "padding_mask_crop": "drawing a crop alone is not offered; edit() draws what changes, and keeps the rest",
    "masked_image_latents": "it is made of image and mask_image; give those",
    "adapter_conditioning_scale": "here it is t2i_adapter_conditioning_scale",
    "adapter_conditioning_factor": "T2I-Adapters act in all steps; leave it out",
    "prompt_2": _SECOND,
    "negative_prompt_2": _SECOND,
    "original_size": _SIZES,
    "target_size": _SIZES,
    "crops_coords_top_left": _SIZES,
    "negative_original_size": _SIZES,
    "negative_target_size": _SIZES,
    "negative_crops_coords_top_left": _SIZES,
    "denoising_start": _ENSEMBLE,
    "denoising_end": _ENSEMBLE,
    "aesthetic_score": _AESTHETIC,
    "negative_aesthetic_score": _AESTHETIC,
    "gligen_phrases": _GLIGEN,
    "gligen_boxes": _GLIGEN,
    "gligen_images": "pictures of instances are given as Instance(..., reference=picture), with an IP-Adapter",
    "gligen_scheduled_sampling_beta": _GLIGEN,
    "callback": _STEPS,
    "callback_steps": _STEPS,
}
"""Arguments of diffusers' Stable Diffusion pipelines -> why not, and what to do."""

_KARRAS: dict[str, Any] = {"use_karras_sigmas": True}
_TRAILING: dict[str, Any] = {"timestep_spacing": "trailing"}
_MULTISTEP = "DPMSolverMultistepScheduler"
_SDE: dict[str, Any] = {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}
_ODE: dict[str, Any] = {"algorithm_type": "dpmsolver++", "solver_order": 2}


@dataclass(frozen=True)
class SchedulerKind:
    """A scheduler that can be asked for by name.

    Attributes:
        name: in small letters, with underscores between words.
        scheduler: a class of diffusers by name, or any class with the interface of diffusers' schedulers.
        options: what makes the class what the name says, in place of the model's own configuration.
    """

    name: str
    scheduler: str | type
    options: Mapping[str, Any] = field(default_factory=dict)


SCHEDULERS: dict[str, SchedulerKind] = {}
"""The schedulers by name. "plms" and "pndm" are the same, as are "dpm++" and "dpm++_2m"."""


def register_scheduler(kind: SchedulerKind) -> SchedulerKind:
    """Add a scheduler of your own, or replace one: pipelines, commands and the studio then know its name.

    Raises:
        ValueError: the name is not written as names are.
    """
    if kind.name != _plain(kind.name):
        raise ValueError(f"scheduler: {kind.name!r} is not a plain name; write {_plain(kind.name)!r}")
    SCHEDULERS[kind.name] = kind
    return kind


_SPELLINGS = {
    "k_euler": "euler",
    "k_euler_a": "euler_a",
    "k_lms": "lms",
    "k_heun": "heun",
    "k_dpm_2": "dpm2",
    "k_dpm_2_a": "dpm2_a",
}


def scheduler_name(text: str) -> str:
    """The name of `SCHEDULERS` that a text spells, or the text as it is.

    Case, spaces and hyphens do not count, and other programs' short forms are understood: "DPM++ 2M Karras",
    "dpmpp_2m_k" and "Euler a" are "dpm++_2m_karras" and "euler_a".
    """
    if text in SCHEDULERS:
        return text
    name = _plain(text)
    return name if name in SCHEDULERS else text


def _plain(text: str) -> str:
    name = re.sub(r"[\s_-]+", "_", text.strip().lower()).replace("dpmpp", "dpm++")
    name = re.sub(r"_ancestral(?=_|$)", "_a", re.sub(r"_k$", "_karras", name))
    return _SPELLINGS.get(name, name)


for _kind in (
    SchedulerKind("pndm", "PNDMScheduler", {"skip_prk_steps": True}),
    SchedulerKind("plms", "PNDMScheduler", {"skip_prk_steps": True}),
    SchedulerKind("ddim", "DDIMScheduler"),
    SchedulerKind("ddim_trailing", "DDIMScheduler", _TRAILING),
    SchedulerKind("ddpm", "DDPMScheduler"),
    SchedulerKind("dpm++", _MULTISTEP, _ODE),
    SchedulerKind("dpm++_2m", _MULTISTEP, _ODE),
    SchedulerKind("dpm++_2m_karras", _MULTISTEP, _ODE | _KARRAS),
    SchedulerKind("dpm++_2m_sde", _MULTISTEP, _SDE),
    SchedulerKind("dpm++_2m_sde_karras", _MULTISTEP, _SDE | _KARRAS),
    SchedulerKind("dpm++_2s", "DPMSolverSinglestepScheduler", _ODE),
    SchedulerKind("dpm++_2s_karras", "DPMSolverSinglestepScheduler", _ODE | _KARRAS),
    SchedulerKind("dpm++_sde", "DPMSolverSDEScheduler"),
    SchedulerKind("dpm++_sde_karras", "DPMSolverSDEScheduler", _KARRAS),
    SchedulerKind("dpm2", "KDPM2DiscreteScheduler"),
    SchedulerKind("dpm2_karras", "KDPM2DiscreteScheduler", _KARRAS),
    SchedulerKind("dpm2_a", "KDPM2AncestralDiscreteScheduler"),
    SchedulerKind("dpm2_a_karras", "KDPM2AncestralDiscreteScheduler", _KARRAS),
    SchedulerKind("euler", "EulerDiscreteScheduler"),
    SchedulerKind("euler_karras", "EulerDiscreteScheduler", _KARRAS),
    SchedulerKind("euler_trailing", "EulerDiscreteScheduler", _TRAILING),
    SchedulerKind("euler_a", "EulerAncestralDiscreteScheduler"),
    SchedulerKind("heun", "HeunDiscreteScheduler"),
    SchedulerKind("heun_karras", "HeunDiscreteScheduler", _KARRAS),
    SchedulerKind("lms", "LMSDiscreteScheduler"),
    SchedulerKind("lms_karras", "LMSDiscreteScheduler", _KARRAS),
    SchedulerKind("deis", "DEISMultistepScheduler"),
    SchedulerKind("deis_karras", "DEISMultistepScheduler", _KARRAS),
    SchedulerKind("unipc", "UniPCMultistepScheduler"),
    SchedulerKind("unipc_karras", "UniPCMultistepScheduler", _KARRAS),
    SchedulerKind("sa", "SASolverScheduler"),
    SchedulerKind("lcm", "LCMScheduler"),
    SchedulerKind("tcd", "TCDScheduler"),
):
    register_scheduler(_kind)

PRECISIONS = ("float32", "bfloat16", "float16", "int8")
"""What OpenVINO may compute a network in. "int8" are its linear layers and convolutions; see `adapter.quantization`."""


def openvino_precision(device: str | None) -> str | None:
    """The precision that a device of OpenVINO is asked for: "int8" of "openvino:int8"; None where none is."""
    name, _, rest = (device or "").partition(":")
    last = rest.rpartition(":")[2]
    return last if name == "openvino" and last in PRECISIONS else None


def precision_fact(device: str | None) -> dict[str, str]:
    """What of a device decides pictures, for records: {"precision": "int8"} of "openvino:int8"; {} of most."""
    precision = openvino_precision(device)
    return {} if precision is None else {"precision": precision}


STANDARD = "-"
"""What stands for standard input, or standard output, in place of a path."""
