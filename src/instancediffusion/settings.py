"""The settings of a run, each declared once.

What a setting is called, which values it takes, its default and a line of help stand at its field of
`GenerationSettings`. The options of commands, the controls of the studio and all checks are derived from there.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin, get_type_hints

from instancediffusion.choices import (
    ABSENT_LOCATIONS,
    INSTANCE_MASK_RULES,
    MERGE_RULES,
    MULTI_INSTANCE_RULES,
    NOT_OFFERED,
    RETIRED,
    SCHEDULERS,
    SEGMENTATION_ORDERS,
    STEP_ROUNDINGS,
    AbsentLocations,
    InstanceMaskRule,
    MultiInstanceRule,
    SegmentationOrder,
    StepRounding,
    scheduler_name,
)
from instancediffusion.errors import SettingsError, SettingsWarning
from instancediffusion.presets import PRESETS, Preset, few_step_settings, find_preset

Kind = Literal["integer", "number", "text", "numbers"]


@dataclass(frozen=True)
class Setting:
    """The declaration of a field of `GenerationSettings`.

    Attributes:
        help: what it does, in one line.
        low: smallest value of a number.
        high: largest value of a number.
        choices: words it may hold; a registry is read anew at each use.
        spelt: the word of `choices` that a text stands for.
        absent: what leaving it out means, where it has no default of its own.
        option: its command line option, where that is called otherwise.
        label: what the studio calls it, in plain words.
        paper: what the paper or the published code calls it.
        slider: lowest, highest and step of its slider in the studio; a whole step means whole numbers.
        words: what its choices are called in the studio; those without a word keep their name.
        needs: what it needs beside scenes; commands and pages without that do not offer it.
        no_control: why the studio has no control for it.
        later: it came after folders of pictures were made without it; see `GenerationSettings.decisive`.
        name: the field.
        kind: what its value is; lists are of falling numbers.
        optional: it may be None.
        default: of the library; a model may bring its own.
    """

    help: str
    low: float | None = None
    high: float | None = None
    choices: Collection[str] = ()
    spelt: Callable[[str], str] = str
    absent: str = ""
    option: str = ""
    label: str = ""
    paper: str = ""
    slider: tuple[float, float, float] | None = None
    words: Mapping[str, str] = field(default_factory=dict)
    needs: str = ""
    no_control: str = ""
    later: bool = False
    name: str = ""
    kind: Kind = "number"
    optional: bool = False
    default: Any = None

    def problems(self, value: object) -> Iterator[str]:
        """What is wrong with a value; nothing, if it can be used."""
        if value is None and self.optional:
            return
        low, high = 0 if self.low is None else self.low, math.inf if self.high is None else self.high
        if self.choices:
            if not isinstance(value, str) or value not in self.choices:
                allowed = ", ".join(self.choices)
                yield f"{self.name}: {value!r} is not one of {allowed}{_nearest(str(value), self.choices)}"
        elif self.kind == "integer":
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                yield f"{self.name}: {value!r} is not a whole number from {low} to {high}"
        elif self.kind == "number":
            if not is_number(value) or not low <= value <= high:  # type: ignore[operator]
                yield f"{self.name}: {value!r} is not a number from {low:g} to {high:g}"
        elif self.kind == "text":
            if not isinstance(value, str):
                yield f"{self.name}: {value!r} is not a text; a Scene may hold one of its own"
        else:
            numbers = value if isinstance(value, tuple) and all(is_number(v) and v >= low for v in value) else ()
            if not numbers or any(a <= b for a, b in pairwise(numbers)):
                yield f"{self.name}: {value!r} is not a list of numbers of {low} or more that fall"


def _setting(help: str, **attributes: Any) -> dict[str, Setting]:
    """A field's declaration, as its metadata."""
    return {"setting": Setting(help, **attributes)}


_PUBLISHED = "it is for those who repeat the published inference"
_SCENE = "a scene says it"


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
        guidance_start: fraction of the steps, from the start, that are made without guidance.
        guidance_end: fraction of the steps after which guidance is off again; without it a step takes half
            the NFE. Guidance helps pictures most in the interval between the two (Kynkäänniemi et al. 2024).
        guidance_rescale: fraction of a guided prediction's contrast that is put back (Lin et al. 2023), 0 to 1.
        clip_skip: layers of the text encoder to leave out for prompts, from the last on; None = none.
        grounding_fraction: fraction of the steps in which the instances are injected, from the start (the published
            code's alpha).
        grounding_decay_fraction: fraction of the steps after those in which the injection fades out.
        mis_fraction: fraction of the steps in which each instance is denoised in a branch of its own before all are
            merged (the Multi-instance Sampler); 0 = off. Each instance takes one more NFE a step, two with guidance.
        mis_merge: `"mean"` of all latents; `"crop"`: each instance's latent pasted inside its extent; `"layered"`:
            instances run on crops, and are composited by depth order (a fraction of the cost); or `"regional"`: no
            branches, in those steps the whole scene's cross-attention reads captions where instances are visible
            (hardly any cost).
        mis_compat: `"published"` keeps three details of the published code: step counts are truncated, crops are
            transposed and pasted in the order of the file, and at a fraction of 1 or more the last instance's latent
            alone is returned.
        step_rounding: how the two grounding fractions become step counts; `"published"` truncates.
        instance_mask: attention mask rule (`"none"`, `"grounding"`, `"full"`, `"visibility"`, `"published"`), or
            None for the adapter's own.
        absent_locations: what an instance without a kind of location that others of its scene have is fed for it.
            `"null"`: the null feature, as if no instance had that kind; `"published"`: the features of coordinates that
            are all zero, as in the published inference.
        segmentation_order: which mask gets which channel of the segmentation input. `"area"`: in order of falling box
            area, as in the published training; `"published"`: that of the instances in the scene, as in the
            published inference.
        order_guidance_scale: counterfactual order guidance: how far to push away from the reversed depth order, where
            instances of stated order overlap; 0 = off.
        order_guidance_fraction: fraction of the steps, from the start, in which it acts.
        cache_interval: the inner blocks of the UNet, its deep features, are computed in every so many-th network call
            of a stage, and kept for those between (DeepCache, Ma et al. 2024); 1 = in every call.
        token_merging: fraction of the visual tokens of large maps that attend, and are attended to, as one with the
            first token of their 2x2 patch, never across the border of an instance (after Bolya and Hoffman 2023).
        negative_prompt: what the pictures are not to show; None takes each scene's own.
        height: height of the pictures in pixels; None derives it from the model and the scene.
        width: width of the pictures in pixels; None derives it from the model and the scene.
        strength: of a picture to go on from (`image`), the fraction of the steps that are made on it, 0 to 1: at 1
            hardly anything of it is left. None means 0.8, and 1 with a mask. The other fractions then count the steps
            made.
        refiner_strength: fraction of the refiner's noise schedule to redo, 0 (off) to 1.
        refiner_steps: steps of the refiner's whole schedule.
        refiner_guidance_scale: guidance of the refiner; None takes its own default.
        max_batch_rows: largest batch of one network call, conditional and unconditional branches and instances
            counted, crops by their area. It bounds memory and changes results by rounding only.
    """

    num_inference_steps: int = field(
        default=25,
        metadata=_setting(
            "Steps of the sampler: more take longer and add detail.",
            low=1,
            high=100_000,
            option="steps",
            label="Steps",
            slider=(1, 100, 1),
        ),
    )
    timesteps: tuple[int, ...] | None = field(
        default=None,
        metadata=_setting(
            "Training steps (0 to 999, falling) to make the steps at, with commas.",
            low=0,
            absent="spaced by the sampler",
            no_control="a list of numbers is no slider",
        ),
    )
    sigmas: tuple[float, ...] | None = field(
        default=None,
        metadata=_setting(
            "Noise levels (falling) to make the steps at, with commas.",
            low=0.0,
            absent="spaced by the sampler",
            no_control="a list of numbers is no slider",
        ),
    )
    scheduler: str | None = field(
        default=None,
        metadata=_setting(
            "The solver that goes from noise to the picture.",
            choices=SCHEDULERS,
            spelt=scheduler_name,
            absent="the model's own",
            label="Sampler",
            paper="noise scheduler",
        ),
    )
    eta: float = field(
        default=0.0,
        metadata=_setting(
            "Noise that DDIM and TCD add on the way.", low=0, high=1, no_control="it acts with two samplers only"
        ),
    )
    guidance_scale: float = field(
        default=7.5,
        metadata=_setting(
            "Weight of the prompt; 1 = guidance off.",
            low=0,
            high=1000,
            label="Stick to the words",
            paper="classifier-free guidance scale",
            slider=(1, 15, 0.5),
        ),
    )
    guidance_start: float = field(
        default=0.0,
        metadata=_setting(
            "Fraction of the steps before guidance acts.",
            low=0,
            high=1,
            label="Words act from",
            paper="guidance interval, begin",
            later=True,
            slider=(0, 1, 0.05),
        ),
    )
    guidance_end: float = field(
        default=1.0,
        metadata=_setting(
            "Fraction of the steps after which guidance acts no more, which halves their NFE.",
            low=0,
            high=1,
            label="Words act until",
            paper="guidance interval, end",
            later=True,
            slider=(0, 1, 0.05),
        ),
    )
    guidance_rescale: float = field(
        default=0.0,
        metadata=_setting(
            "Fraction of a guided prediction's contrast that is put back.",
            low=0,
            high=1,
            no_control="it is for models trained with zero terminal signal",
        ),
    )
    clip_skip: int | None = field(
        default=None,
        metadata=_setting(
            "Layers of the text encoder to leave out for prompts, from the last on.",
            low=0,
            high=100,
            absent="none",
            no_control="it is for checkpoints trained with it",
        ),
    )
    grounding_fraction: float = field(
        default=0.8,
        metadata=_setting(
            "Fraction of the steps in which the instances steer the picture.",
            low=0,
            high=1,
            label="Stick to the places",
            paper="grounding fraction (published: alpha)",
            slider=(0, 1, 0.05),
        ),
    )
    grounding_decay_fraction: float = field(
        default=0.0,
        metadata=_setting(
            "Fraction of the steps after those in which they fade out.",
            low=0,
            high=1,
            no_control="the two fractions may not exceed 1 together, which sliders cannot show",
        ),
    )
    mis_fraction: float = field(
        default=0.36,
        metadata=_setting(
            "Fraction of the steps in which each instance is drawn by itself: separates objects, takes time for each.",
            low=0,
            high=10,
            label="Objects one by one",
            paper="Multi-instance Sampler fraction (published: mis)",
            slider=(0, 1, 0.04),
        ),
    )
    mis_merge: str = field(
        default="mean",
        metadata=_setting(
            "How instances that were drawn by themselves join the whole picture.",
            choices=MERGE_RULES,
            label="How they are joined",
            paper="merge rule of the Multi-instance Sampler",
            words={"mean": "average", "crop": "cut and paste", "layered": "in layers", "regional": "by caption only"},
        ),
    )
    mis_compat: MultiInstanceRule = field(
        default="none",
        metadata=_setting("Keep the published sampler's details.", choices=MULTI_INSTANCE_RULES, no_control=_PUBLISHED),
    )
    step_rounding: StepRounding = field(
        default="nearest",
        metadata=_setting("How fractions become steps.", choices=STEP_ROUNDINGS, no_control=_PUBLISHED),
    )
    instance_mask: InstanceMaskRule | None = field(
        default=None,
        metadata=_setting(
            "Attention mask: which instances attend to which inside the network.",
            choices=INSTANCE_MASK_RULES,
            absent="the adapter's own",
            label="Keep objects apart",
            paper="instance-masked attention",
            words={
                "none": "off",
                "grounding": "objects",
                "full": "objects and background",
                "published": "as published",
                "visibility": "who is in front",
            },
        ),
    )
    absent_locations: AbsentLocations = field(
        default="null",
        metadata=_setting("What stands in for missing locations.", choices=ABSENT_LOCATIONS, no_control=_PUBLISHED),
    )
    segmentation_order: SegmentationOrder = field(
        default="area",
        metadata=_setting("Which mask gets which channel.", choices=SEGMENTATION_ORDERS, no_control=_PUBLISHED),
    )
    order_guidance_scale: float = field(
        default=0.0,
        metadata=_setting(
            "Push away from the picture with the depth order reversed.",
            low=0,
            high=1000,
            label="Stick to the layers",
            paper="counterfactual order guidance scale",
            slider=(0, 10, 0.5),
        ),
    )
    order_guidance_fraction: float = field(
        default=0.4,
        metadata=_setting(
            "Fraction of the steps in which it does.", low=0, high=1, no_control="its scale is enough to try it"
        ),
    )
    cache_interval: int = field(
        default=1,
        metadata=_setting(
            "Run the inner blocks of the network in every so many-th step only; 1 = in all.",
            low=1,
            high=100,
            label="Reuse deep features",
            paper="cache interval (DeepCache)",
            later=True,
            slider=(1, 5, 1),
        ),
    )
    token_merging: float = field(
        default=0.0,
        metadata=_setting(
            "Fraction of the visual tokens of large maps that attend as one, never across instances.",
            low=0,
            high=0.75,
            label="Merge like tokens",
            paper="token merging (ToMe)",
            later=True,
            slider=(0, 0.75, 0.05),
        ),
    )
    negative_prompt: str | None = field(
        default=None,
        metadata=_setting("What not to show.", absent="each scene's own", no_control=_SCENE),
    )
    height: int | None = field(
        default=None,
        metadata=_setting(
            "Height in pixels.", low=8, high=8192, absent="the model's, in the scene's shape", no_control=_SCENE
        ),
    )
    width: int | None = field(
        default=None,
        metadata=_setting(
            "Width in pixels.", low=8, high=8192, absent="the model's, in the scene's shape", no_control=_SCENE
        ),
    )
    strength: float | None = field(
        default=None,
        metadata=_setting(
            "How much of the steps are made on a given picture.",
            low=0,
            high=1,
            absent="0.8; 1 with a mask",
            needs="a picture",
            no_control="the studio goes on from its own pictures only, by editing them",
        ),
    )
    refiner_strength: float = field(
        default=0.0,
        metadata=_setting(
            "How much a refiner may change; 0.35 if one is given.",
            low=0,
            high=1,
            needs="a refiner",
            no_control="the studio loads no refiner",
        ),
    )
    refiner_steps: int = field(
        default=20,
        metadata=_setting(
            "Steps of the refiner's whole schedule.",
            low=1,
            high=100_000,
            needs="a refiner",
            no_control="the studio loads no refiner",
        ),
    )
    refiner_guidance_scale: float | None = field(
        default=None,
        metadata=_setting(
            "Weight of the prompt in the refiner.",
            low=0,
            high=1000,
            absent="the refiner's own",
            needs="a refiner",
            no_control="the studio loads no refiner",
        ),
    )
    max_batch_rows: int = field(
        default=8,
        metadata=_setting(
            "Bound on the batch of one network call, and so on memory.",
            low=1,
            high=100_000,
            no_control="it bounds memory, which is set where the studio is started",
        ),
    )

    def __post_init__(self) -> None:
        """Check every field, and report all that is wrong, one line each."""
        for setting in SETTINGS.values():
            given = getattr(self, setting.name)
            if setting.choices and isinstance(given, str):
                object.__setattr__(self, setting.name, setting.spelt(given))
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

    def _problems(self) -> Iterator[str]:
        for setting in SETTINGS.values():
            yield from setting.problems(getattr(self, setting.name))
        if self.timesteps is not None and self.sigmas is not None:
            yield "timesteps: sigmas are given, too; leave one of them out"
        if self.mis_compat == "none" and is_number(self.mis_fraction) and 1 < self.mis_fraction <= 10:
            # The published code takes fractions beyond 1, and does something else there.
            yield f"mis_fraction: {self.mis_fraction!r} is not a number from 0 to 1"
        first, last = self.guidance_start, self.guidance_end
        if is_number(first) and is_number(last) and last < first <= 1:
            yield f"guidance_end: {last} is before guidance_start {first}; lower that one"
        strength, steps = self.refiner_strength, self.refiner_steps
        if is_number(strength) and isinstance(steps, int) and 0 < strength <= 1 and int(steps * strength) < 1:
            yield f"refiner_strength: {strength} of {steps} refiner_steps is no step at all; raise one of them"
        decay, full = self.grounding_decay_fraction, self.grounding_fraction
        if is_number(decay) and is_number(full) and decay <= 1 and full <= 1 and decay + full > 1 + 1e-6:
            yield f"grounding_decay_fraction: {decay} and grounding_fraction {full} add up to more than 1; lower one"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-like values; they are also the keyword arguments of a pipeline call."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def decisive(self) -> dict[str, Any]:
        """What of it decides pictures, for the marks of folders that are gone on with.

        The bound on the batch changes pictures by rounding only. And a field that earlier versions lacked is included
        where it is not off, so that their folders are gone on with.
        """
        values = self.to_dict()
        for setting in SETTINGS.values():
            if setting.name == "max_batch_rows" or (setting.later and values[setting.name] == setting.default):
                del values[setting.name]
        return values

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

    @classmethod
    def preset(cls, name: str, base: GenerationSettings | None = None, loras: Iterable[str] = ()) -> GenerationSettings:
        """The settings of a preset.

        Args:
            name: one of `presets.PRESETS`.
            base: what it stands on, such as a model's `default_settings`; None = the library's defaults.
            loras: names of the LoRA files in use; for one that was distilled to few steps, `fast` and `balanced` take
                the sampler, steps and guidance of its kind, see `presets.FEW_STEP`.

        Raises:
            SettingsError: there is no such preset, or it does not go with the base.
        """
        chosen = find_preset(name)
        few = few_step_settings(loras) if chosen.few_step else {}
        own = base or cls()
        return own.replace(**{**chosen.on(vars(own)), **few})


def register_preset(preset: Preset) -> Preset:
    """Add a preset of your own, or replace one: pipelines, commands and the studio then know its name.

    Raises:
        SettingsError: its values are no settings.
    """
    GenerationSettings().replace(**preset.values)
    PRESETS[preset.name] = preset
    return preset


def check_names(names: Iterable[str], beside: Iterable[str] = ()) -> None:
    """Raise `SettingsError` for a name that is no field of `GenerationSettings`; `beside` may have been meant, too."""
    fields = list(SETTINGS)
    for name in names:
        if name in NOT_OFFERED:
            raise SettingsError(f"{name}: {NOT_OFFERED[name]}")
        if name not in fields and name not in RETIRED:
            raise SettingsError(f"{name}: unknown setting{_nearest(name, [*fields, *beside])}")


def _settings() -> dict[str, Setting]:
    """The declaration of each field, by name."""
    found: dict[str, Setting] = {}
    hints = get_type_hints(GenerationSettings)
    for own in dataclasses.fields(GenerationSettings):
        kinds = [hint for hint in _parts(hints[own.name]) if hint is not types.NoneType]
        found[own.name] = dataclasses.replace(
            own.metadata["setting"],
            name=own.name,
            kind="numbers" if get_origin(kinds[0]) is tuple else _KINDS.get(kinds[0], "text"),
            optional=len(kinds) < len(_parts(hints[own.name])),
            default=own.default,
        )
    return found


def _parts(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if isinstance(hint, types.UnionType) or type(None) in get_args(hint) else (hint,)


_KINDS: Mapping[Any, Kind] = {int: "integer", float: "number", str: "text"}


def is_number(value: object) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _nearest(name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


SETTINGS: Mapping[str, Setting] = _settings()
"""Every field of `GenerationSettings` by name, in order."""
