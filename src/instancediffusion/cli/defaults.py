"""Defaults of options from configuration files and the environment.

A value on the command line comes first, then the environment (`INSTANCEDIFFUSION_GENERATE_STEPS`), then the file
given by `--config`, then `instancediffusion.toml` in the working folder, then the user's own `config.toml`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from instancediffusion.errors import SettingsError

PREFIX = "INSTANCEDIFFUSION"
PROJECT_FILE = "instancediffusion.toml"


def user_file() -> Path:
    """Where the user's own defaults are."""
    return Path(click.get_app_dir("instancediffusion")) / "config.toml"


def read_defaults(given: Path | None) -> tuple[dict[str, Any], list[Path]]:
    """Read the tables of every configuration file there is, and say which were read.

    Raises:
        SettingsError: one is not TOML.
    """
    merged: dict[str, Any] = {}
    files = [path for path in (user_file(), Path(PROJECT_FILE), given) if path is not None and path.is_file()]
    for path in files:
        _merge(merged, _parse(path))
    return merged, files


def default_map(command: click.Command, ctx: click.Context, table: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Turn a table of a configuration file into click's `default_map` of a command.

    Args:
        command: the command, or a group whose commands have tables of their own.
        ctx: a context of its parent.
        table: option names, with dashes or underscores, -> values.
        place: what the table is called, for messages.

    Raises:
        SettingsError: it names an option or command that does not exist.
    """
    known = {
        name: option
        for option in command.params
        if isinstance(option, click.Option)
        for name in [option.name or "", *(opt.lstrip("-").replace("-", "_") for opt in option.opts if opt[:2] == "--")]
    }
    commands = command.list_commands(ctx) if isinstance(command, click.Group) else []
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name in known:
            option = known[name]
            found[option.name or ""] = [value] if option.multiple and not isinstance(value, list) else value
        elif key in commands and isinstance(command, click.Group) and isinstance(value, Mapping):
            inner = command.get_command(ctx, key)
            if inner is not None:
                found[key] = default_map(inner, ctx, value, f"{place}.{key}")
        else:
            near = difflib.get_close_matches(name, [*known, *commands], n=1, cutoff=0.5)
            hint = f"; did you mean {near[0].replace('_', '-')!r}?" if near else ""
            raise SettingsError(f"{place}: {key!r} is no option of it{hint}")
    return found


def name_variables(command: click.Command, path: str) -> None:
    """Let the environment give each option under the name people type: `--steps` is `..._GENERATE_STEPS`.

    Click by itself knows the names of the parameters alone (`..._GENERATE_NUM_INFERENCE_STEPS`), which work, too.
    """
    prefix = path.upper().replace("-", "_")
    for option in command.params:
        if not isinstance(option, click.Option) or option.envvar is not None:
            continue
        longest = max((opt for opt in option.opts if opt.startswith("--")), key=len, default="")
        name = longest.lstrip("-").upper().replace("-", "_")
        if name and name != (option.name or "").upper():
            option.envvar = f"{prefix}_{name}"
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            name_variables(inner, f"{prefix}_{name}")


def _parse(path: Path) -> dict[str, Any]:
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is not TOML ({error}); write [generate], and below it steps = 20") from None


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value
