"""A grid of pictures that differ in one or two things: a setting, or who is in front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from instancediffusion.errors import SettingsError
from instancediffusion.scene import Scene
from instancediffusion.settings import GenerationSettings
from instancediffusion.studio.controls import controls

ORDER = "z_order"
"""The axis that is no setting: the layers as they are, or swapped."""
ORDERS = ("as drawn", "swapped")


@dataclass(frozen=True)
class Cell:
    """One item of a grid.

    Attributes:
        name: of its pictures' files.
        column: index along x.
        row: index along y.
        scene: what it shows.
        settings: how it is made.
    """

    name: str
    column: int
    row: int
    scene: Scene
    settings: GenerationSettings


@dataclass(frozen=True)
class Axis:
    """What changes along one side: a setting or `z_order`, and its values."""

    setting: str
    values: tuple[Any, ...]

    @property
    def title(self) -> str:
        """What it is called on the page."""
        if self.setting == ORDER:
            return "Layers"
        return next((control.label for control in controls() if control.name == self.setting), self.setting)


def swapped(scene: Scene) -> Scene:
    """The scene with its layers in reverse; instances without a stated order keep none."""
    return replace(
        scene,
        instances=tuple(
            instance if instance.z_order is None else replace(instance, z_order=-instance.z_order)
            for instance in scene.instances
        ),
    )


def read_axis(value: object, where: str) -> Axis | None:
    """Read an axis from a request.

    Args:
        value: `{"setting": name, "values": [...]}`, or None.
        where: its name in messages, `"x"` or `"y"`.

    Raises:
        SettingsError: it is something else, or the setting cannot be an axis.
    """
    if value is None:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("setting"), str):
        raise SettingsError(f'grid.{where}: write {{"setting": name, "values": [...]}}')
    setting, values = value["setting"], value.get("values")
    allowed = [ORDER, *(control.name for control in controls())]
    if setting not in allowed:
        raise SettingsError(f"grid.{where}: {setting[:60]!r} cannot be an axis; use one of {', '.join(allowed)}")
    if setting == ORDER:
        return Axis(ORDER, ORDERS)
    if not isinstance(values, list) or not 1 <= len(values) <= 16:
        raise SettingsError(f"grid.{where}: give 1 to 16 values of {setting}")
    kept = tuple(dict.fromkeys(value for value in values if isinstance(value, str | int | float) or value is None))
    if len(kept) != len(values):
        raise SettingsError(f"grid.{where}: values are numbers or words, each once")
    return Axis(setting, kept)


def cells(scene: Scene, settings: GenerationSettings, x: Axis | None, y: Axis | None) -> list[Cell]:
    """The items of a grid, row by row; without axes there is one.

    Raises:
        SettingsError: both axes are the same, a value is out of range, or the order is to be swapped where no two
            instances state one.
    """
    if x is None and y is None:
        return [Cell("scene", 0, 0, scene, settings)]
    if x is not None and y is not None and x.setting == y.setting:
        raise SettingsError(f"grid: both sides change {x.setting}; choose two different things")
    stated = {instance.z_order for instance in scene.instances if instance.z_order is not None}
    if len(stated) < 2 and ORDER in (x.setting if x else "", y.setting if y else ""):
        raise SettingsError("grid: no two objects are on different layers, so there is no order to swap")
    made = []
    for row, down in enumerate(_values(y)):
        for column, across in enumerate(_values(x)):
            shown, chosen = _changed(scene, settings, x, across)
            shown, chosen = _changed(shown, chosen, y, down)
            made.append(Cell(f"scene_x{column}y{row}", column, row, shown, chosen))
    return made


def _values(axis: Axis | None) -> Sequence[Any]:
    return (None,) if axis is None else axis.values


def _changed(
    scene: Scene, settings: GenerationSettings, axis: Axis | None, value: Any
) -> tuple[Scene, GenerationSettings]:
    if axis is None:
        return scene, settings
    if axis.setting == ORDER:
        return (swapped(scene) if value == ORDERS[1] else scene), settings
    return scene, settings.replace(**{axis.setting: value})
