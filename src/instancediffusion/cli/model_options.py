"""The options of every command that opens a model to draw with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

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
    click.option("--device", help="cpu, cuda, mps ... Default: the fastest there is."),
)


def model_options(command: _Command) -> _Command:
    """Give a command `--model`, `--adapter`, `--variant`, `--dtype` and `--device`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
