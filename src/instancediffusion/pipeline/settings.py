"""The settings of one run."""

from __future__ import annotations

import dataclasses
import difflib
import math
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from instancediffusion.choices import (
    ABSENT_LOCATIONS,
    INSTANCE_MASK_RULES,
    MERGE_RULES,
    RETIRED,
    SCHEDULERS,
    SEGMENTATION_ORDERS,
    AbsentLocations,
    InstanceMaskRule,
    SegmentationOrder,
    scheduler_name,
)
from instancediffusion.errors import SettingsError, SettingsWarning
from instancediffusion.pipeline.not_offered import NOT_OFFERED
from instancediffusion.sampling import StepRounding, Steps

MultiInstanceRule = Literal["none", "published"]


@dataclass(frozen=True)
class GenerationSettings:
    """Everything that decides a picture, beside the model, the scene and the seed.

    Attributes:
        num_inference_steps: steps of the sampler, 1 or more.
        timesteps: training steps to make the steps at (0 to 999, falling), in place of `num_inference_steps`, for
            schedulers that take them.
        sigmas: noise levels to make the steps at (falling), the same.
        scheduler: a name of `choices.SCHEDULERS` in any spelling, or None for the model's own.
        eta: noise that DDIM and TCD add on the way, 0 (none) to 1.
        guidance_scale: classifier-free guidance; 1 or less = off.
        guidance_rescale: share of a guided prediction's contrast that is put back (Lin et al. 2023), 0 to 1.
        clip_skip: layers of the text encoder to leave out for prompts, from the last on; None = none.
        grounding_fraction: share of the steps in which the instances are injected, from the start (the published
            code's alpha).
        grounding_decay_fraction: share of the steps after those in which the injection fades out.
        mis_fraction: share of the steps in which each instance is denoised alone before all are merged (the
            Multi-instance Sampler); 0 = off. It costs one more network pass a step for each instance.
        mis_merge: `"mean"` of all latents; `"crop"`: each instance's latent pasted inside its extent; or
            `"layered"`: instances run on crops, and are composited by depth order (a fraction of the cost).
        mis_compat: `"published"` keeps three details of the published code: step counts are truncated, crops are
            transposed and pasted in the order of the file, and at a share of 1 or more the last instance's latent is
            returned alone.
        step_rounding: how the two grounding shares become step counts; `"published"` truncates.
        instance_mask: attention mask rule (`"none"`, `"grounding"`, `"full"`, `"visibility"`, `"published"`), or
            None for the adapter's own.
        absent_locations: what an instance without a kind of location that others of its scene have is fed for it.
            `"null"`: the null feature, as if no instance had that kind; `"published"`: the features of coordinates that
            are all zero, as in the published inference.
        segmentation_order: which mask gets which channel of the segmentation input. `"area"`: in order of falling box
            area, as in the published training; `"published"`: that of the instance's place in the scene, as in the
            published inference.
        order_guidance_scale: counterfactual order guidance: how far to push away from the reversed depth order, where
            instances of stated order overlap; 0 = off.
        order_guidance_fraction: share of the steps, from the start, in which it acts.
        negative_prompt: what the pictures are not to show; None takes each scene's own.
        height: height of the pictures in pixels; None derives it from the model and the scene.
        width: width of the pictures in pixels; None derives it from the model and the scene.
        strength: of a picture to go on from (`image`), the share of the steps that are made on it, 0 to 1: at 1 hardly
            anything of it is left. None means 0.8, and 1 with a mask. The other shares then count the steps made.
        refiner_strength: share of the refiner's noise schedule to redo, 0 (off) to 1.
        refiner_steps: steps of the refiner's whole schedule.
        refiner_guidance_scale: guidance of the refiner; None takes its own default.
        max_batch_rows: most rows in one network call, guidance halves and instances counted, crops by their area. It
            bounds memory and changes results by rounding only.
    """

    num_inference_steps: int = 25
    timesteps: tuple[int, ...] | None = None
    sigmas: tuple[float, ...] | None = None
    scheduler: str | None = None
    eta: float = 0.0
    guidance_scale: float = 7.5
    guidance_rescale: float = 0.0
    clip_skip: int | None = None
    grounding_fraction: float = 0.8
    grounding_decay_fraction: float = 0.0
    mis_fraction: float = 0.36
    mis_merge: str = "mean"
    mis_compat: MultiInstanceRule = "none"
    step_rounding: StepRounding = "nearest"
    instance_mask: InstanceMaskRule | None = None
    absent_locations: AbsentLocations = "null"
    segmentation_order: SegmentationOrder = "area"
    order_guidance_scale: float = 0.0
    order_guidance_fraction: float = 0.4
    negative_prompt: str | None = None
    height: int | None = None
    width: int | None = None
    strength: float | None = None
    refiner_strength: float = 0.0
    refiner_steps: int = 20
    refiner_guidance_scale: float | None = None
    max_batch_rows: int = 8

    def __post_init__(self) -> None:
        """Check every field, and report all that is wrong, one line each."""
        if isinstance(self.scheduler, str):
            object.__setattr__(self, "scheduler", scheduler_name(self.scheduler))
        for name in ("timesteps", "sigmas"):
            given = getattr(self, name)
            if given is not None and not isinstance(given, str | bytes) and hasattr(given, "__iter__"):
                # Arrays and tensors give numbers of their own types.
                values = tuple(value.item() if hasattr(value, "item") else value for value in given)
                object.__setattr__(self, name, values)
        problems = list(self._problems())
        if problems:
            raise SettingsError("\n".join(problems))
        if self.timesteps is not None:
            object.__setattr__(self, "num_inference_steps", len(self.timesteps))
        if self.sigmas is not None:  # a 0 at the end is where the last step leads
            object.__setattr__(self, "num_inference_steps", len(self.sigmas) - (self.sigmas[-1] == 0))

    @property
    def steps(self) -> Steps:
        """The steps of a run."""
        return Steps(self.num_inference_steps, self.timesteps, self.sigmas)

    def _problems(self) -> Iterator[str]:
        yield from self._numbers_out_of_range()
        yield from self._lists_of_steps()
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value not in allowed and not (value is None and name in _OPTIONAL):
                yield f"{name}: {value!r} is not one of {', '.join(allowed)}{_nearest(str(value), allowed)}"
        negative: object = self.negative_prompt
        if negative is not None and not isinstance(negative, str):
            yield f"negative_prompt: {negative!r} is not a text; a Scene may hold one of its own"
        strength, steps = self.refiner_strength, self.refiner_steps
        if _is_number(strength) and isinstance(steps, int) and 0 < strength <= 1 and int(steps * strength) < 1:
            yield f"refiner_strength: {strength} of {steps} refiner_steps is no step at all; raise one of them"
        decay, full = self.grounding_decay_fraction, self.grounding_fraction
        if _is_number(decay) and _is_number(full) and decay <= 1 and full <= 1 and decay + full > 1 + 1e-6:
            yield f"grounding_decay_fraction: {decay} and grounding_fraction {full} add up to more than 1; lower one"

    def _lists_of_steps(self) -> Iterator[str]:
        if self.timesteps is not None and self.sigmas is not None:
            yield "timesteps: sigmas are given, too; leave one of them out"
        for name, first in (("timesteps", 0), ("sigmas", 0.0)):
            values: object = getattr(self, name)
            if values is None:
                continue
            fits = isinstance(values, tuple) and values and all(_is_number(v) and v >= first for v in values)
            if not fits or any(a <= b for a, b in pairwise(getattr(self, name))):
                yield f"{name}: {values!r} is not a list of numbers of {first} or more that fall"

    def _numbers_out_of_range(self) -> Iterator[str]:
        for name in ("num_inference_steps", "refiner_steps", "max_batch_rows"):
            yield from _integer(name, getattr(self, name), 1, 100_000)
        for name in ("height", "width"):
            if getattr(self, name) is not None:
                yield from _integer(name, getattr(self, name), 8, 8192)
        if self.clip_skip is not None:
            yield from _integer("clip_skip", self.clip_skip, 0, 100)
        for name in (
            "grounding_fraction",
            "grounding_decay_fraction",
            "order_guidance_fraction",
            "refiner_strength",
            "eta",
            "guidance_rescale",
        ):
            yield from _number(name, getattr(self, name), 0, 1)
        if self.strength is not None:
            yield from _number("strength", self.strength, 0, 1)
        # The published code takes shares beyond 1, and does something else there.
        yield from _number("mis_fraction", self.mis_fraction, 0, 1 if self.mis_compat == "none" else 10)
        for name in ("guidance_scale", "order_guidance_scale"):
            yield from _number(name, getattr(self, name), 0, 1000)
        if self.refiner_guidance_scale is not None:
            yield from _number("refiner_guidance_scale", self.refiner_guidance_scale, 0, 1000)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-like values; they are also the keyword arguments of a pipeline call."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GenerationSettings:
        """Read what `to_dict` returned; fields that are absent take their defaults.

        Raises:
            SettingsError: a field is unknown (the nearest one is named) or out of range.
        """
        return cls().replace(**values)

    def replace(self, **values: Any) -> GenerationSettings:
        """Return the same settings but for the named fields; see `from_dict` for errors.

        Warns:
            SettingsWarning: a field is one of `choices.RETIRED`, which no longer does anything.
        """
        check_names(values)
        for name in RETIRED.keys() & values.keys():
            warnings.warn(f"{name}: {RETIRED[name]}; leave it out", SettingsWarning, stacklevel=2)
        return dataclasses.replace(self, **{name: value for name, value in values.items() if name not in RETIRED})


def check_names(names: Iterable[str], beside: Iterable[str] = ()) -> None:
    """Raise `SettingsError` for a name that is no field of `GenerationSettings`; `beside` may have been meant, too."""
    known = [field.name for field in dataclasses.fields(GenerationSettings)]
    for name in names:
        if name in NOT_OFFERED:
            raise SettingsError(f"{name}: {NOT_OFFERED[name]}")
        if name not in known and name not in RETIRED:
            raise SettingsError(f"{name}: unknown setting{_nearest(name, [*known, *beside])}")


def choices_of(name: str) -> tuple[str, ...]:
    """The words a field of `GenerationSettings` may hold, registered ones among them; none for other fields."""
    return tuple(_CHOICES.get(name, ()))


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


_CHOICES: Mapping[str, Collection[str]] = {
    "scheduler": SCHEDULERS,
    "mis_merge": MERGE_RULES,
    "mis_compat": ("none", "published"),
    "step_rounding": ("nearest", "published"),
    "instance_mask": INSTANCE_MASK_RULES,
    "absent_locations": ABSENT_LOCATIONS,
    "segmentation_order": SEGMENTATION_ORDERS,
}
_OPTIONAL = ("scheduler", "instance_mask")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(name: str, value: object, low: float, high: float) -> Iterator[str]:
    if not _is_number(value) or not low <= value <= high:  # type: ignore[operator]
        yield f"{name}: {value!r} is not a number from {low:g} to {high:g}"


def _integer(name: str, value: object, low: int, high: int) -> Iterator[str]:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        yield f"{name}: {value!r} is not a whole number from {low} to {high}"


def _nearest(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
