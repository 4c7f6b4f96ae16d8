"""Named settings: what a picture costs, chosen by one word.

A preset is a plain set of fields of `GenerationSettings`. It stands on the settings a model is best run with, and below
whatever is stated beside it.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from instancediffusion.errors import SettingsError


@dataclass(frozen=True)
class Preset:
    """Settings under a name.

    Attributes:
        name: in small letters, for calls and commands.
        help: what it is for, one line.
        values: fields of `GenerationSettings` in place of the model's own.
        shares: by field, the fraction of the model's own value that it may be at most: models differ in how many steps
            they need, and those that are sampled without per-instance branches need none of these.
        whole: fields that stay as they are where the model's own value is 1. A model that is conditioned on its
            instances in all steps was trained with them and draws worse without; a base model that takes over draws as
            ever.
        few_step: with a LoRA file that was distilled to few steps, those of `FEW_STEP` come on top.
    """

    name: str
    help: str
    values: Mapping[str, Any] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    whole: tuple[str, ...] = ()
    few_step: bool = False

    def on(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """What it replaces of a model's own settings, given by name."""
        chosen = {name: value for name, value in self.values.items() if name not in self.whole or own[name] != 1}
        for name, fraction in self.shares.items():
            most = fraction * own[name]
            if isinstance(chosen[name], int):
                most = max(math.floor(most + 0.5), min(FEWEST_STEPS, own[name]))
            chosen[name] = min(chosen[name], most)
        return chosen


PUBLISHED_INFERENCE: Mapping[str, Any] = {
    "scheduler": "plms",
    "num_inference_steps": 50,
    "grounding_fraction": 0.8,
    "mis_fraction": 0.36,
    "mis_merge": "mean",
    "instance_mask": "none",
}
"""What the published `inference.py` runs: its sampler, its schedules, and no attention mask. Everything else stays the
model's own: its guidance scale, and whatever its adapter has beside the published parts (`mini`: box-relative
values)."""

_NO_LISTS = {"timesteps": None, "sigmas": None}
"""Lists of noise levels, which a model may state, would decide the number of steps."""
_NO_SHORT_CUT = {"guidance_start": 0.0, "guidance_end": 1.0, "cache_interval": 1, "token_merging": 0.0}

FEWEST_STEPS = 4
"""A fraction of a model's steps is no less than these, or all."""

PRESETS: dict[str, Preset] = {}
"""The presets by name; `settings.register_preset` adds others."""

for _preset in (
    Preset(
        "exact",
        "The published numbers: the steps, fractions and details of the published code.",
        {
            **PUBLISHED_INFERENCE,
            **_NO_LISTS,
            "grounding_decay_fraction": 0.0,
            "guidance_rescale": 0.0,
            "order_guidance_scale": 0.0,
            "step_rounding": "published",
            "mis_compat": "published",
            "absent_locations": "published",
            "segmentation_order": "published",
            **_NO_SHORT_CUT,
        },
    ),
    Preset(
        "faithful",
        "Many steps; objects steer throughout, and are first drawn by themselves and joined in layers.",
        {
            "num_inference_steps": 50,
            **_NO_LISTS,
            "grounding_fraction": 1.0,
            "grounding_decay_fraction": 0.0,
            "mis_fraction": 0.36,
            "mis_merge": "layered",
            **_NO_SHORT_CUT,
        },
    ),
    Preset(
        "balanced",
        "A multistep solver, cheap layers, deep features in every other call: a fraction of the published cost.",
        {
            "scheduler": "dpm++_2m",
            "num_inference_steps": 20,
            **_NO_LISTS,
            "grounding_fraction": 0.8,
            "grounding_decay_fraction": 0.0,
            "mis_fraction": 0.2,
            "mis_merge": "layered",
            "guidance_start": 0.0,
            "guidance_end": 1.0,
            "cache_interval": 2,
        },
        shares={"num_inference_steps": 0.8, "mis_fraction": 1.0},
        whole=("grounding_fraction",),
        few_step=True,
    ),
    Preset(
        "fast",
        "Few steps with every short cut that does not show.",
        {
            "scheduler": "dpm++_2m",
            "num_inference_steps": 10,
            **_NO_LISTS,
            "grounding_fraction": 0.6,
            "grounding_decay_fraction": 0.0,
            "mis_fraction": 0.2,
            "mis_merge": "layered",
            "guidance_start": 0.0,
            "guidance_end": 1.0,
            "cache_interval": 2,
        },
        shares={"num_inference_steps": 0.4, "mis_fraction": 1.0},
        whole=("grounding_fraction",),
        few_step=True,
    ),
):
    PRESETS[_preset.name] = _preset


def find_preset(name: object) -> Preset:
    """The preset of a name.

    Raises:
        SettingsError: there is none; the message lists all, and the nearest.
    """
    if isinstance(name, str) and name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(str(name)[:60].lower(), PRESETS, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise SettingsError(f"preset: {str(name)[:60]!r} is not one of {', '.join(PRESETS)}{hint}")


_FEW = {**_NO_LISTS, "num_inference_steps": 4, "guidance_scale": 1.0, "cache_interval": 1}

FEW_STEP: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "LCM": (r"(?<![a-z])(lcm|dmd2)(?![a-z])", {**_FEW, "scheduler": "lcm"}),
    "TCD": (r"(?<![a-z])tcd(?![a-z])", {**_FEW, "scheduler": "tcd", "eta": 0.3}),
    "Hyper-SD": (r"(?<![a-z])hyper[-_ ]?sd", {**_FEW, "scheduler": "ddim_trailing"}),
    "Distilled": (r"(?<![a-z])distilled[-_ ]\d+[-_ ]?steps?(?![a-z])", {**_FEW, "scheduler": "ddim_trailing"}),
    "Lightning": (r"(?<![a-z])lightning.*\d[-_ ]?step", {**_FEW, "scheduler": "euler_trailing"}),
}
"""By family of LoRA files distilled to few steps: how their names are recognised, and the settings their authors use.

"Distilled" are those of the training stage "distillation". Such weights have guidance trained in. A number of steps in
the name ("8steps") is the number made; "cfg" in it says that guidance is still wanted.
"""


def few_step_settings(loras: Iterable[str]) -> dict[str, Any]:
    """The settings that the first few-step LoRA among some needs; none if there is none.

    Args:
        loras: what each is called: path, hub id, file or adapter name. The files themselves do not state it.
    """
    for lora in loras:
        parts = [part for part in lora.replace("\\", "/").lower().split("/") if part]
        # The name that diffusers gives to every file says nothing; its folder may.
        name = next((part for part in reversed(parts) if not part.startswith("pytorch_lora_weights")), "")
        for pattern, values in FEW_STEP.values():
            if not re.search(pattern, name):
                continue
            count = re.search(r"(\d+)[-_ ]?steps?(?![a-z])", name)
            chosen = dict(values)
            if count is not None and int(count[1]) >= 1:
                chosen["num_inference_steps"] = int(count[1])
            if re.search(r"(?<![a-z])cfg(?![a-z])", name):
                del chosen["guidance_scale"]
            return chosen
    return {}
