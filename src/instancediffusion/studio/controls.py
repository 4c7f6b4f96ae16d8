"""The settings a person may turn: plain words on the page, the paper's names beside them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from instancediffusion.pipeline import GenerationSettings
from instancediffusion.pipeline.settings import choices_of


@dataclass(frozen=True)
class Control:
    """One setting as the page shows it.

    Attributes:
        name: the field of `GenerationSettings`.
        label: plain words.
        paper: what the paper or the published code calls it.
        help: what it does, a sentence.
        low: smallest value of a number.
        high: largest value of a number.
        step: step of its slider; a whole one means whole numbers.
        words: what its choices are called on the page; choices without a word keep their name.
    """

    name: str
    label: str
    paper: str
    help: str
    low: float | None = None
    high: float | None = None
    step: float | None = None
    words: tuple[tuple[str, str], ...] = ()


_CONTROLS = (
    Control("num_inference_steps", "Steps", "num_inference_steps", "More steps take longer and add detail.", 1, 100, 1),
    Control("guidance_scale", "Stick to the words", "classifier-free guidance scale", "1 = off.", 1, 15, 0.5),
    Control(
        "grounding_fraction",
        "Stick to the places",
        "grounding fraction (published: alpha)",
        "Share of the steps in which the objects steer the picture.",
        0,
        1,
        0.05,
    ),
    Control(
        "mis_fraction",
        "Objects one by one",
        "Multi-instance Sampler fraction (published: mis)",
        "Share of the steps in which each object is drawn alone. Keeps objects apart; costs time for each object.",
        0,
        1,
        0.04,
    ),
    Control(
        "mis_merge",
        "How they are joined",
        "merge rule of the Multi-instance Sampler",
        "Matters only where objects are drawn by themselves.",
        words=(("mean", "average"), ("crop", "cut and paste"), ("layered", "in layers")),
    ),
    Control(
        "instance_mask",
        "Keep objects apart",
        "instance-masked attention",
        "Who may look at whom inside the network.",
        words=(
            ("none", "off"),
            ("grounding", "objects"),
            ("full", "objects and background"),
            ("published", "as published"),
            ("visibility", "who is in front"),
        ),
    ),
    Control(
        "order_guidance_scale",
        "Stick to the layers",
        "counterfactual order guidance scale",
        "Pushes away from the picture with the layers swapped.",
        0,
        10,
        0.5,
    ),
    Control("scheduler", "Sampler", "noise scheduler", "The solver that goes from noise to the picture."),
)


def controls() -> tuple[Control, ...]:
    """The controls of the settings this version knows."""
    known = {field.name for field in dataclasses.fields(GenerationSettings)}
    return tuple(control for control in _CONTROLS if control.name in known)


def described(defaults: GenerationSettings) -> list[dict[str, Any]]:
    """The controls as the page reads them, with the model's own value of each."""
    found = []
    for control in controls():
        choices, words = choices_of(control.name), dict(control.words)
        entry: dict[str, Any] = {
            "name": control.name,
            "label": control.label,
            "paper": control.paper,
            "help": control.help,
            "default": getattr(defaults, control.name),
        }
        if choices:
            entry["choices"] = [{"value": choice, "label": words.get(choice, choice)} for choice in choices]
            entry["optional"] = getattr(GenerationSettings(), control.name) is None
        else:
            entry |= {"low": control.low, "high": control.high, "step": control.step}
        found.append(entry)
    return found
