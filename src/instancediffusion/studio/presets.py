"""Three ways to run a model, each a few settings on top of those it is best run with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instancediffusion.pipeline import GenerationSettings
from instancediffusion.pipeline.settings import choices_of

PRESETS = {
    "fast": ("Fast", "A sketch in a few steps."),
    "balanced": ("Balanced", "What the model is best run with."),
    "faithful": ("Faithful", "Twice the steps; objects steer throughout and are first drawn by themselves."),
}


def preset(name: str, defaults: GenerationSettings) -> dict[str, Any]:
    """The settings in which a preset differs from the model's own.

    Args:
        name: a key of `PRESETS`.
        defaults: the model's own settings.
    """
    steps = defaults.num_inference_steps
    if name == "fast":
        return {"num_inference_steps": max(4, round(0.4 * steps)), "mis_fraction": 0.0}
    if name == "faithful":
        changes: dict[str, Any] = {
            "num_inference_steps": min(2 * steps, 100),
            "mis_fraction": max(defaults.mis_fraction, 0.36),
        }
        if defaults.grounding_decay_fraction == 0:
            changes["grounding_fraction"] = 1.0
        if "layered" in choices_of("mis_merge"):
            changes["mis_merge"] = "layered"
        return changes
    return {}


def described(defaults: GenerationSettings) -> list[Mapping[str, Any]]:
    """The presets as the page reads them."""
    return [
        {"name": name, "label": label, "help": text, "settings": preset(name, defaults)}
        for name, (label, text) in PRESETS.items()
    ]
