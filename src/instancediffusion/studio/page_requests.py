"""What a browser or a program asks for, checked: from JSON to a plan of pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from instancediffusion.additions import Additions
from instancediffusion.errors import SettingsError
from instancediffusion.pipeline.requests import resolve_seeds
from instancediffusion.scene import Scene
from instancediffusion.settings import SETTINGS, GenerationSettings
from instancediffusion.studio.bounds import Limits, RefusedError
from instancediffusion.studio.controls import OWN, preset_names, with_preset
from instancediffusion.studio.cost import total_rows
from instancediffusion.studio.grids import Axis, Cell, cells, read_axis
from instancediffusion.studio.shelf import Shelf

OPTIONS = ("preset", "settings", "seed", "pictures", "grid", "edit", "additions")
# They need a picture, name other models, or bound this machine's memory: that is decided where the studio is started.
_CLOSED = (*(setting.name for setting in SETTINGS.values() if setting.needs), "max_batch_rows")


@dataclass(frozen=True)
class Edit:
    """A picture made here that is changed into a scene; see `InstanceDiffusionPipeline.edit`.

    Attributes:
        run: id of the result it is in.
        file: its name there.
        redraw: instances of the scene, from 0, that are drawn anew though nothing about them changed.
    """

    run: str
    file: str
    redraw: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Everything a job makes: each grid item with each seed.

    Attributes:
        scene: the scene as it was sent.
        cells: one item, or those of a grid.
        seeds: of the pictures of a grid item; they are the same in each.
        x: what changes across, or None.
        y: what changes down, or None.
        options: what was asked for, kept beside the result.
        edit: the picture that is changed, or None.
        additions: LoRA files, control pictures and the like.
    """

    scene: Scene
    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    x: Axis | None
    y: Axis | None
    options: Mapping[str, Any]
    edit: Edit | None = None
    additions: Additions = field(default_factory=Additions)

    @property
    def pictures(self) -> int:
        """How many there will be."""
        return len(self.cells) * len(self.seeds)

    @property
    def rows(self) -> int:
        """NFE of all of them."""
        return total_rows((cell.scene, cell.settings, len(self.seeds)) for cell in self.cells)

    @property
    def grid(self) -> dict[str, Any] | None:
        """The axes as the page reads them."""
        if self.x is None and self.y is None:
            return None
        return {
            name: {"setting": axis.setting, "title": axis.title, "values": list(axis.values)}
            for name, axis in (("x", self.x), ("y", self.y))
            if axis is not None
        }


def plan_of(
    scene: Scene, options: object, defaults: GenerationSettings, limits: Limits, shelf: Shelf | None = None
) -> Plan:
    """Read the options of a request.

    Args:
        scene: the scene, checked.
        options: JSON data: `preset` (a name), `settings` (fields of `GenerationSettings`), `seed` (a number, also as
            text, or null for a random one), `pictures` (a count), `grid` (`{"x": axis, "y": axis}`), `edit`
            (`{"run": id, "file": name, "redraw": [instance]}`, a picture to be changed) and `additions` (see
            `Shelf.read`). All may be left out.
        defaults: the model's own settings.
        limits: bounds.
        shelf: the files that can be added; None for none.

    Raises:
        SettingsError: an option is unknown or out of range.
        ModelError: a library that additions need is missing.
        RefusedError: the request is beyond a bound.
    """
    if options is None:
        options = {}
    if not isinstance(options, dict):
        raise SettingsError("options: write a JSON object")
    for name in options:
        if name not in OPTIONS:
            raise SettingsError(f"options: {str(name)[:60]!r} is not known; use {', '.join(OPTIONS)}")
    count = options.get("pictures", 1)
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= limits.pictures:
        raise SettingsError(f"pictures: {str(count)[:20]!r} is not a whole number from 1 to {limits.pictures}")
    seed = options.get("seed")
    if isinstance(seed, str) and seed.isascii() and seed.isdigit() and len(seed) <= 20:
        seed = int(seed)
    if seed is not None and not isinstance(seed, int):
        raise SettingsError(f"seed: {str(seed)[:20]!r} is not a whole number")
    grid = options.get("grid")
    grid = {} if grid is None else grid
    if not isinstance(grid, dict) or set(grid) - {"x", "y"}:
        raise SettingsError('grid: write {"x": axis, "y": axis}')
    if options.get("additions") and shelf is None:
        raise SettingsError("additions: there is no folder of them here")
    additions = Additions() if shelf is None else shelf.read(options.get("additions"))
    settings = _settings(options, defaults, additions)
    x, y = read_axis(grid.get("x"), "x"), read_axis(grid.get("y"), "y")
    fields = tuple(cells(scene, settings, x, y))
    edit = _edit(options.get("edit"), len(scene.instances))
    if edit is not None and (x is not None or y is not None):
        raise SettingsError("grid: it does not go with a picture that is edited; leave one of them out")
    plan = Plan(scene, fields, tuple(resolve_seeds(seed, count)), x, y, dict(options), edit, additions)
    _check_bounds(plan, limits)
    return plan


def _edit(given: object, instances: int) -> Edit | None:
    if given is None:
        return None
    if not isinstance(given, dict) or set(given) - {"run", "file", "redraw"}:
        raise SettingsError('edit: write {"run": id, "file": name, "redraw": [instance]}')
    run, file, redraw = given.get("run"), given.get("file"), given.get("redraw", [])
    if not isinstance(run, str) or not isinstance(file, str) or not file.endswith(".png"):
        raise SettingsError("edit: name a result and one of its pictures")
    numbers: list[Any] = redraw if isinstance(redraw, list) else [None]
    if not all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < instances for i in numbers):
        raise SettingsError(f"edit: redraw is a list of instances from 0; the scene has {instances}")
    return Edit(run, file, tuple(numbers))


def _settings(options: Mapping[str, Any], defaults: GenerationSettings, additions: Additions) -> GenerationSettings:
    name = options.get("preset", OWN)
    if not isinstance(name, str) or name not in preset_names():
        raise SettingsError(f"preset: {str(name)[:60]!r} is not one of {', '.join(preset_names())}")
    given = options.get("settings")
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise SettingsError("settings: write a JSON object")
    open_fields = [field for field in SETTINGS if field not in _CLOSED]
    for key in given:
        if key not in open_fields:
            raise SettingsError(f"settings: {str(key)[:60]!r} is not known here; use {', '.join(open_fields)}")
    loras = [lora.source for lora in additions.loras if lora.weight]
    return with_preset(name, defaults, loras).replace(**given)


def _check_bounds(plan: Plan, limits: Limits) -> None:
    if plan.pictures > limits.pictures:
        raise RefusedError(f"pictures: {plan.pictures} are asked for; one request makes at most {limits.pictures}")
    for cell in plan.cells:
        settings = cell.settings
        if settings.num_inference_steps > limits.steps:
            raise RefusedError(f"num_inference_steps: {settings.num_inference_steps} is more than {limits.steps}")
        if settings.negative_prompt is not None and len(settings.negative_prompt) > limits.text_chars:
            raise RefusedError(f"negative_prompt: it is longer than {limits.text_chars} characters")
    if plan.rows > limits.rows:
        raise RefusedError(
            f"this takes {plan.rows:,} network passes, and one request may take {limits.rows:,}; "
            "ask for fewer pictures, steps or objects"
        )
