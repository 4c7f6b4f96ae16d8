"""The options of every command that takes settings: one for each field of `GenerationSettings`, and `--preset`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click

from instancediffusion.presets import PRESETS
from instancediffusion.settings import SETTINGS, GenerationSettings, Setting

from .click_types import Names

_Command = TypeVar("_Command", bound=Callable[..., Any])


def settings_options(*, alone: bool = False) -> Callable[[_Command], _Command]:
    """Give a command an option for each setting, which it gets as keyword arguments; those left out are None.

    Args:
        alone: the command has nothing but scenes, so that settings that need a picture or a refiner are left out.
    """
    options = [
        click.option("--preset", type=Names(PRESETS), help="Named settings, in place of the model's own."),
        *(option_of(setting) for setting in SETTINGS.values() if not (alone and setting.needs)),
    ]

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def option_of(setting: Setting) -> Callable[[_Command], _Command]:
    """The option of a setting."""
    name = "--" + (setting.option or setting.name.replace("_", "-"))
    text = f"{setting.help} Default: {setting.absent}." if setting.absent else setting.help
    return click.option(name, setting.name, type=_type_of(setting), help=text)


def settings_of(
    defaults: GenerationSettings, options: Mapping[str, Any], loras: Iterable[str] = ()
) -> GenerationSettings:
    """The settings of a command: the model's own, then the preset's, then what was asked for.

    Args:
        defaults: the model's own `GenerationSettings`.
        options: values of `settings_options`; None was not asked for.
        loras: names of the LoRA files in use.
    """
    given = {name: value for name, value in options.items() if value is not None}
    preset = given.pop("preset", None)
    settings = defaults if preset is None else GenerationSettings.preset(preset, defaults, loras)
    return settings.replace(**given)


def _type_of(setting: Setting) -> click.ParamType:  # type: ignore[type-arg, unused-ignore]
    if setting.choices:
        return Names(setting.choices, setting.spelt)
    if setting.kind == "integer":
        return click.IntRange(_whole(setting.low), _whole(setting.high))
    if setting.kind == "number":
        return _Number(setting.low, setting.high)
    return click.STRING if setting.kind == "text" else _Numbers()


def _whole(bound: float | None) -> int | None:
    return None if bound is None else int(bound)


class _Number(click.FloatRange):
    """A finite number in a range; click's own range takes NaN."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it, or fail."""
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is not a number from {self.min:g} to {self.max:g}", param, ctx)
        return found


class _Numbers(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Numbers with commas between them."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Read them, or fail."""
        if isinstance(value, list | tuple):  # from a configuration file
            return tuple(value)
        try:
            return tuple(float(part) if set(part) & set(".eE") else int(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not numbers with commas between them", param, ctx)
