"""Recipes: everything a training run depends on, read from one TOML file.

A recipe is data: the same file, the same seed and the same machine give the same weights. `Recipe.to_dict` is what a
checkpoint keeps, so that a run is never continued with another recipe by accident.
"""

from __future__ import annotations

import difflib
import sys
import types
import typing
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from instancediffusion.data.location_dropout import LocationDropout
from instancediffusion.errors import SettingsError

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover - the standard library's reader came with Python 3.11
    import tomli as tomllib

T = TypeVar("T")


@dataclass(frozen=True)
class WorldConfig:
    """The pictures to learn from.

    Attributes:
        scenes: how many scenes to draw.
        shard: scenes per folder; the unit that is written at once.
        first_seed: seed of scene 0; scene k has seed `first_seed + k`.
        max_instances: slots stored for each scene.
        region_px: side of the stored mask bitmaps; also what the adapter's attention regions are made from.
        options: passed to `World.load`.
    """

    scenes: int = 24_000
    shard: int = 500
    first_seed: int = 0
    max_instances: int = 8
    region_px: int = 64
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OptimiserConfig:
    """One run of the optimiser.

    Attributes:
        steps: planned steps; the learning rate reaches its end there.
        batch_size: pictures per step.
        learning_rate: highest rate, reached after `warmup` steps, decayed by half a cosine to `final_rate` times that.
        weight_decay: AdamW's, for weights with two or more axes only.
        betas: AdamW's.
        grad_clip: largest norm of the gradient of all weights together.
        ema_decay: of the running mean of the weights; see `Ema`.
        seed: of the initial weights and of every random draw.
        precision: "bf16" (autocast; weights stay float32) or "fp32".
        checkpoint_every: steps between checkpoints.
        log_every: steps between lines of the log.
        preview_every: steps between pictures; 0 = never.
    """

    steps: int = 1000
    batch_size: int = 16
    learning_rate: float = 1e-3
    warmup: int = 100
    final_rate: float = 0.02
    weight_decay: float = 0.01
    betas: tuple[float, ...] = (0.9, 0.99)
    grad_clip: float = 1.0
    ema_decay: float = 0.999
    seed: int = 0
    precision: str = "bf16"
    checkpoint_every: int = 250
    log_every: int = 25
    preview_every: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if self.precision not in ("bf16", "fp32"):
            raise SettingsError(f"precision = {self.precision!r}: expected 'bf16' or 'fp32'")
        for name in ("steps", "batch_size", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} = {getattr(self, name)}: expected at least 1")


@dataclass(frozen=True)
class AutoencoderConfig:
    """A stock `AutoencoderKL` without attention, whose code is measured and whose two halves are trained apart.

    Attributes:
        block_out_channels: channels at 1/1, 1/2, ... of the resolution; their number sets the side of a block of the
            code.
        layers_per_block: residual blocks per level.
        latent_channels: numbers in the code of a block.
        whitening: 1 scales every number of the code to one variance, 0 keeps their proportions; see `BlockCode`.
        norm_num_groups: groups of the group norms.
        gradient_weight: of the L1 distance of finite differences, at full and half resolution: keeps edges.
        latent_noise: standard deviation of what is added to the code that the decoder reads.
        encoder: the encoder's run.
        decoder: the decoder's run.
    """

    block_out_channels: tuple[int, ...] = (16, 32, 64, 160)
    layers_per_block: int = 1
    latent_channels: int = 8
    whitening: float = 0.5
    norm_num_groups: int = 2
    gradient_weight: float = 1.0
    latent_noise: float = 0.1
    encoder: OptimiserConfig = field(default_factory=OptimiserConfig)
    decoder: OptimiserConfig = field(default_factory=OptimiserConfig)


@dataclass(frozen=True)
class TextConfig:
    """The tokenizer and the CLIP text model, both trained from nothing.

    Attributes:
        vocabulary: largest number of entries, 514 of which are the bytes (alone and at a word's end) and the two marks.
        length: tokens of a prompt, marks included.
        width: channels of the context (cross-attention) and of the caption features.
        layers: transformer layers.
        heads: attention heads.
        optimiser: the run of the stage "text".
    """

    vocabulary: int = 2000
    length: int = 32
    width: int = 256
    layers: int = 3
    heads: int = 4
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)


@dataclass(frozen=True)
class UNetConfig:
    """The denoiser, a stock `UNet2DConditionModel` with attention at every level.

    Attributes:
        block_out_channels: channels of each level.
        layers_per_block: residual blocks (and transformer blocks) per level.
        head_channels: channels per attention head.
        sample_size: side of the latent grid it is trained on.
    """

    block_out_channels: tuple[int, ...] = (128, 256)
    layers_per_block: int = 1
    head_channels: int = 32
    sample_size: int = 16


@dataclass(frozen=True)
class DiffusionConfig:
    """The objective and the run of text model, UNet and adapter.

    Attributes:
        beta_start, beta_end: ends of the "scaled_linear" schedule of 1,000 steps.
        logit_mean, logit_std: t = 1000 sigmoid(n), n normal: most steps on the middle of the schedule.
        min_snr_gamma: weight of the loss min(snr, gamma) / (snr + 1) instead of 1 (Hang et al. 2023, for
            v-prediction); 0 = off.
        drop_prompt: probability that a picture's prompt is emptied.
        drop_grounding: probability that a picture has no instances, drawn independently.
        drop_both: probability that both are taken away together, besides.
        attention_gate, dense_gate: initial tanh gates of the fusers; zero gates (as published) would leave the
            instances unheard for the first thousands of steps of a model that has to learn everything.
        train_text: whether the text model learns on. At the rate of the rest it was seen to forget most of what sets
            captions apart.
        instance_mask: rule of the attention between cells and instances, from the first step.
        optimiser: the run.
    """

    beta_start: float = 0.00085
    beta_end: float = 0.02
    logit_mean: float = 0.2
    logit_std: float = 1.2
    min_snr_gamma: float = 0.0
    drop_prompt: float = 0.10
    drop_grounding: float = 0.10
    drop_both: float = 0.05
    attention_gate: float = 1.0
    dense_gate: float = 0.3
    train_text: bool = False
    instance_mask: str = "grounding"
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)


@dataclass(frozen=True)
class ExportConfig:
    """What the exported folder says of itself beside its weights.

    Attributes:
        scheduler: class of a stock scheduler.
        scheduler_options: its settings beside those of the noise schedule.
        settings: generation settings that suit the model.
        licence: of the weights.
        pictures: where the training pictures come from, in one line.
    """

    scheduler: str = "DPMSolverMultistepScheduler"
    scheduler_options: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    licence: str = "Apache-2.0"
    pictures: str = ""


@dataclass(frozen=True)
class Recipe:
    """A whole model: its name, its world, its parts, its runs."""

    name: str
    world: WorldConfig = field(default_factory=WorldConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    text: TextConfig = field(default_factory=TextConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    adapter: dict[str, Any] = field(default_factory=dict)
    locations: LocationDropout = field(default_factory=LocationDropout)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    export: ExportConfig = field(default_factory=ExportConfig)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-like values."""
        return asdict(self)


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe file; see `read_as` for what it raises."""
    return read_as(Recipe, path)


def read_as(kind: type[T], path: str | Path) -> T:
    """Read a TOML file as a config dataclass.

    Raises:
        SettingsError: the file is missing, is no TOML, or names an unknown or unusable setting.
    """
    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror or error}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not a TOML file: {error}") from error
    return build(kind, values, str(path))


def build(kind: type[T], values: Any, where: str) -> T:
    """Make a config dataclass from a table, naming the setting and the fix in every complaint."""
    if not isinstance(values, dict):
        raise SettingsError(f"{where}: expected a table, got {values!r}")
    hints = typing.get_type_hints(kind)
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise SettingsError(f"{where}: unknown setting {name!r}; {hint}")
    read = {name: _value(hints[name], value, f"{where}: {name}") for name, value in values.items()}
    try:
        return kind(**read)
    except TypeError as error:
        raise SettingsError(f"{where}: {error}") from error


def _value(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, where)
    if isinstance(hint, types.GenericAlias) and hint.__origin__ is tuple:
        if not isinstance(value, list):
            raise SettingsError(f"{where} = {value!r}: expected a list")
        return tuple(_value(hint.__args__[0], item, where) for item in value)
    plain = getattr(hint, "__origin__", hint)
    if plain is float and type(value) is int:
        return float(value)
    if type(value) is not plain:
        raise SettingsError(f"{where} = {value!r}: expected {plain.__name__}")
    return value
