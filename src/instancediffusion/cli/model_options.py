"""The options of every command that opens a model to draw with: which one, and where it runs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from instancediffusion.errors import SettingsError
from instancediffusion.ray_pool import RayOptions

ENGINES = ("local", "ray")

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--model", default="mini", show_default=True, help="mini, sd15, a folder, a file or a hub id."),
    click.option("--adapter", help="Adapter to use: a folder, a file or a hub id."),
    click.option("--variant", help="Variant of the weights, such as fp16. Default: the plain ones, or the only one."),
    click.option(
        "--dtype",
        type=click.Choice(["float32", "bfloat16", "float16"]),
        default="float32",
        show_default=True,
        help="Type of the model's numbers.",
    ),
    click.option("--device", help="cpu, cuda, mps, openvino, openvino:int8 ... Default: the fastest there is."),
)


def model_options(command: _Command) -> _Command:
    """Give a command `--model`, `--adapter`, `--variant`, `--dtype` and `--device`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def engine_options(command: _Command) -> _Command:
    """Give a command the options of an engine, which it gets as `engine`: `RayOptions`, or None for this process."""
    options = [
        click.option(
            "--engine",
            "engine_name",
            type=click.Choice(ENGINES),
            default="local",
            show_default=True,
            help="This process, or a Ray cluster (extra [ray]); pictures are written here.",
        ),
        click.option("--address", help="With --engine ray: of a cluster that runs. Default: one on this machine."),
        click.option("--actors", type=click.IntRange(min=1), help="With --engine ray: models open at a time."),
        click.option(
            "--gpus", type=click.FloatRange(min=0), help="With --engine ray: GPUs of each, or a fraction of one."
        ),
        click.option("--cpus", type=click.FloatRange(min=0, min_open=True), help="With --engine ray: cores of each."),
    ]

    @functools.wraps(command)
    def wrapped(*args: Any, engine_name: str, **kwargs: Any) -> Any:
        given = {name: kwargs.pop(name) for name in ("address", "actors", "gpus", "cpus")}
        stated = [name for name, value in given.items() if value is not None]
        if engine_name == "local" and stated:
            raise SettingsError(f"{stated[0]}: it goes with --engine ray; add that, or leave it out")
        return command(*args, engine=RayOptions(**given) if engine_name == "ray" else None, **kwargs)

    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]
