"""What a person chooses from by name, told without torch: the command line, the studio and the library read it here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

InstanceMaskRule = Literal["none", "grounding", "full", "visibility", "published"]
"""Rules of the attention mask; `conditioning.attention_mask` says what each means."""

INSTANCE_MASK_RULES: tuple[str, ...] = get_args(InstanceMaskRule)

AbsentLocations = Literal["null", "published"]
SegmentationOrder = Literal["area", "published"]
"""Two details of the published inference; `GenerationSettings` says what each means."""

ABSENT_LOCATIONS: tuple[str, ...] = get_args(AbsentLocations)
SEGMENTATION_ORDERS: tuple[str, ...] = get_args(SegmentationOrder)

_KARRAS: dict[str, Any] = {"use_karras_sigmas": True}
_MULTISTEP = "DPMSolverMultistepScheduler"
_SDE: dict[str, Any] = {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}
_ODE: dict[str, Any] = {"algorithm_type": "dpmsolver++", "solver_order": 2}

SCHEDULERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "plms": ("PNDMScheduler", {"skip_prk_steps": True}),
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "dpm++": (_MULTISTEP, _ODE),
    "dpm++_2m": (_MULTISTEP, _ODE),
    "dpm++_2m_karras": (_MULTISTEP, _ODE | _KARRAS),
    "dpm++_2m_sde": (_MULTISTEP, _SDE),
    "dpm++_2m_sde_karras": (_MULTISTEP, _SDE | _KARRAS),
    "dpm++_2s": ("DPMSolverSinglestepScheduler", _ODE),
    "dpm++_2s_karras": ("DPMSolverSinglestepScheduler", _ODE | _KARRAS),
    "dpm++_sde": ("DPMSolverSDEScheduler", {}),
    "dpm++_sde_karras": ("DPMSolverSDEScheduler", _KARRAS),
    "dpm2": ("KDPM2DiscreteScheduler", {}),
    "dpm2_karras": ("KDPM2DiscreteScheduler", _KARRAS),
    "dpm2_a": ("KDPM2AncestralDiscreteScheduler", {}),
    "dpm2_a_karras": ("KDPM2AncestralDiscreteScheduler", _KARRAS),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_karras": ("EulerDiscreteScheduler", _KARRAS),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "heun_karras": ("HeunDiscreteScheduler", _KARRAS),
    "lms": ("LMSDiscreteScheduler", {}),
    "lms_karras": ("LMSDiscreteScheduler", _KARRAS),
    "deis": ("DEISMultistepScheduler", {}),
    "deis_karras": ("DEISMultistepScheduler", _KARRAS),
    "unipc": ("UniPCMultistepScheduler", {}),
    "unipc_karras": ("UniPCMultistepScheduler", _KARRAS),
    "sa": ("SASolverScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
}
"""Name -> class in diffusers and the options that make it what the name says. "plms" and "pndm" are the same, as are
"dpm++" and "dpm++_2m"."""

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

    Case, spaces and hyphens do not count, and other programs' short forms are known: "DPM++ 2M Karras", "dpmpp_2m_k"
    and "Euler a" are "dpm++_2m_karras" and "euler_a".
    """
    if text in SCHEDULERS:
        return text
    name = re.sub(r"[\s_-]+", "_", text.strip().lower()).replace("dpmpp", "dpm++")
    name = re.sub(r"_ancestral(?=_|$)", "_a", re.sub(r"_k$", "_karras", name))
    name = _SPELLINGS.get(name, name)
    return name if name in SCHEDULERS else text
