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
from instancediffusion.training.run_sections import (
    DiffusionConfig,
    DistillationConfig,
    OptimiserConfig,
    ResolutionStage,
)
from instancediffusion.training.sections import (
    AutoencoderConfig,
    DatasetConfig,
    ExportConfig,
    TextConfig,
    UNetConfig,
    WorldConfig,
)

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover - the standard library's reader came with Python 3.11
    import tomli as tomllib

__all__ = [
    "AutoencoderConfig",
    "DatasetConfig",
    "DiffusionConfig",
    "DistillationConfig",
    "ExportConfig",
    "OptimiserConfig",
    "Recipe",
    "ResolutionStage",
    "TextConfig",
    "UNetConfig",
    "WorldConfig",
    "build",
    "read_as",
    "read_recipe",
]

T = TypeVar("T")


@dataclass(frozen=True)
class Recipe:
    """A whole model: its name, its world or data set, its parts, its runs.

    `start` names a finished model (a card, or the folder of an export) whose weights and latents the run goes on from,
    with scenes of its own; its text model is kept as it is. A run from random weights has none. With `start_networks =
    false` only autoencoder and text model are the start's, and UNet and adapter begin with random weights, of any
    architecture.

    `distillation.teacher` names a finished model that is distilled to few steps; nothing else is then trained.

    `reached` holds the results (command, wall time, scores). Nothing depends on it: recipes that differ in nothing
    else are equal, and a run is continued whatever it says.

    Raises:
        SettingsError: sections contradict one another.
    """

    name: str
    start: str = ""
    start_networks: bool = True
    world: WorldConfig = field(default_factory=WorldConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    text: TextConfig = field(default_factory=TextConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    adapter: dict[str, Any] = field(default_factory=dict)
    relative: OptimiserConfig = field(default_factory=OptimiserConfig)
    locations: LocationDropout = field(default_factory=LocationDropout)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    reached: dict[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        """Check what one section cannot check itself."""
        teacher = self.distillation.teacher
        if not self.start_networks and not self.start:
            raise SettingsError("start_networks = false: there is no start whose networks could be left out; name one")
        if teacher and (self.start or self.diffusion.base):
            raise SettingsError(
                f"distillation.teacher = {teacher!r}: start and diffusion.base are for other stages; leave them out"
            )
        if not self.dataset.path:
            return
        if not self.diffusion.base and not teacher:
            raise SettingsError(
                "dataset.path: a data set trains an adapter for a finished model; give diffusion.base and "
                "diffusion.train = 'adapter'"
            )
        sizes = self.dataset.sizes
        if self.diffusion.stages and (len(sizes) > 1 or sizes[0][0] != sizes[0][1]):
            raise SettingsError(
                f"diffusion.stages: of dataset.sizes = {sizes}, one square size can be learned in stages"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-like values."""
        return asdict(self)


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe file; see `read_as` for what it raises."""
    return read_as(Recipe, path)


def read_as(kind: type[T], path: str | Path) -> T:
    """Read a TOML file as a config dataclass.

    A file may extend another: `base = "other.toml"` (sought beside it) gives all that the file does not state itself,
    table by table; lists are replaced whole. `without = ["text.words", ...]` names tables and settings of the base that
    are left at their defaults. The results of the base (`reached`) are not taken over.

    Raises:
        SettingsError: a file is missing, is no TOML, extends itself, or names an unknown or unusable setting.
    """
    return build(kind, _resolved(Path(path), ()), str(path))


def _resolved(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """The values of a file on top of those of its base; `above` are the files that led to it."""
    if path.resolve() in above:
        raise SettingsError(f"{path}: base: the file extends itself; name another")
    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror or error}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not a TOML file: {error}") from error
    name, without = values.pop("base", None), values.pop("without", [])
    if name is None and without:
        raise SettingsError(f"{path}: without: there is no base to take less of; name one, or leave it out")
    if name is None:
        return values
    if not isinstance(name, str) or not isinstance(without, list) or not all(isinstance(item, str) for item in without):
        raise SettingsError(f'{path}: write base = "file.toml" and without = ["table", "table.setting", ...]')
    base = _resolved(path.parent / name, (*above, path.resolve()))
    base.pop("reached", None)
    for left_out in without:
        *tables, last = left_out.split(".")
        table: Any = base
        for key in tables:
            table = table.get(key) if isinstance(table, dict) else None
        if not isinstance(table, dict) or last not in table:
            raise SettingsError(f"{path}: without: {name} has no {left_out!r}; leave it out")
        del table[last]
    return _extended(base, values)


def _extended(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in values.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _extended(merged[key], value) if both else value
    return merged


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
    except (TypeError, SettingsError) as error:
        raise SettingsError(f"{where}: {error}") from error


def _value(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, where)
    if isinstance(hint, types.GenericAlias) and hint.__origin__ is tuple:
        if not isinstance(value, list):
            raise SettingsError(f"{where} = {value!r}: expected a list")
        return tuple(_value(hint.__args__[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    plain = getattr(hint, "__origin__", hint)
    if plain is float and type(value) is int:
        return float(value)
    if type(value) is not plain:
        raise SettingsError(f"{where} = {value!r}: expected {plain.__name__}")
    return value
