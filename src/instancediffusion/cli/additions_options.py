"""The options of `generate` that add something to a model and its scenes; see `instancediffusion.additions`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from instancediffusion.additions import Additions, Weighted

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

_Command = TypeVar("_Command", bound=Callable[..., Any])


def additions_options(command: _Command) -> _Command:
    """Give a command the options of `Additions`, which it gets as `additions`."""
    options = [
        click.option(
            "--lora",
            "loras",
            multiple=True,
            metavar="PATH[:WEIGHT]",
            help="LoRA file, or the name of one in the model's folder lora/; repeatable.",
        ),
        click.option("--textual-inversion", "embeddings", multiple=True, help="Textual inversion file; repeatable."),
        click.option(
            "--ip-adapter", metavar="PATH[:WEIGHT]", help="IP-Adapter file, for reference pictures of scenes."
        ),
        click.option("--ip-adapter-image", type=_FILE, help="A picture that it looks at everywhere."),
        click.option(
            "--controlnet",
            "controlnets",
            multiple=True,
            metavar="MODEL[:WEIGHT]",
            help="ControlNet or T2I-Adapter; repeatable.",
        ),
        click.option("--control", "controls", type=_FILE, multiple=True, help="Its picture; one for each of them."),
        click.option("--image", type=_FILE, help="A picture to go on from."),
        click.option("--mask", type=_FILE, help="White where that is drawn anew; the rest stays."),
        click.option(
            "--edit", type=_FILE, help="A picture to change into SCENE; what is the same stays, to the pixel."
        ),
        click.option(
            "--redraw", type=click.IntRange(min=1), multiple=True, help="With --edit: also this object, from 1."
        ),
        click.option("--layers", is_flag=True, help="Also write a layer for each object: PNG files and OpenRaster."),
    ]

    @functools.wraps(command)
    def wrapped(*args: Any, loras: Any, embeddings: Any, ip_adapter: Any, controlnets: Any, **kwargs: Any) -> Any:
        names = ("ip_adapter_image", "controls", "image", "mask", "edit", "redraw", "layers")
        fields = {name: kwargs.pop(name) for name in names}
        additions = Additions(
            loras=tuple(map(Weighted.read, loras)),
            embeddings=embeddings,
            ip_adapter=None if ip_adapter is None else Weighted.read(ip_adapter),
            controlnets=tuple(map(Weighted.read, controlnets)),
            **fields,
        )
        additions.check()
        return command(*args, additions=additions, **kwargs)

    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]
