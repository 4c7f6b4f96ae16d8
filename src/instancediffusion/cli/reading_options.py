"""The options that say how files of scenes are to be read."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from instancediffusion.choices import BOX_ORDERS, UNITS

from .click_types import Names

FILE = click.Path(exists=True, dir_okay=False, path_type=Path, allow_dash=True)
OUT = click.Path(path_type=Path, allow_dash=True)
_Command = TypeVar("_Command", bound=Callable[..., Any])


class Canvas(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """WIDTHxHEIGHT in pixels."""

    name = "WIDTHxHEIGHT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Read the two sides."""
        found = re.fullmatch(r"\s*(\d{1,5})\s*[xX×]\s*(\d{1,5})\s*", str(value))
        if isinstance(value, tuple):
            return value
        if found is None or not all(16 <= int(side) <= 8192 for side in found.groups()):
            self.fail(f"{value!r} is not WIDTHxHEIGHT in 16..8192 pixels, such as 640x480", param, ctx)
        return int(found[1]), int(found[2])


def _formats() -> Collection[str]:
    from instancediffusion.scene import READ

    return READ


def reading_options(command: _Command) -> _Command:
    """Give a command the options of `Reading`, which it gets as `reading`."""
    options = [
        click.option(
            "--from",
            "format_",
            type=Names(_formats),
            metavar="FORMAT",
            help="Read as this format (`scene formats` lists them); else by content.",
        ),
        click.option("--captions", type=FILE, help="Captions file that goes with a COCO instances file."),
        click.option("--image-id", "image_ids", multiple=True, help="Only this picture of a COCO file; repeatable."),
        click.option("--labels", help="Class names of YOLO files: a classes.txt, a data.yaml, or dog,cat,..."),
        click.option("--canvas", type=Canvas(), help="Size of the picture, where a file does not state it."),
        click.option("--boxes", type=click.Choice(BOX_ORDERS), help="Order of a box's numbers, for lists of boxes."),
        click.option("--units", type=click.Choice(UNITS), help="Unit of the lengths, for lists of boxes."),
    ]

    @functools.wraps(command)
    def wrapped(
        *args: Any,
        format_: str | None,
        captions: Path | None,
        image_ids: tuple[str, ...],
        labels: str | None,
        canvas: tuple[int, int] | None,
        boxes: str | None,
        units: str | None,
        **kwargs: Any,
    ) -> Any:
        from instancediffusion.scene.inputs import Reading

        reading = Reading(format_, captions, image_ids, _labels(labels), canvas, boxes, units)
        return command(*args, reading=reading, **kwargs)

    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]


def _labels(text: str | None) -> Sequence[str] | None:
    if text is None:
        return None
    from instancediffusion.scene.inputs import looks_like_file

    if Path(text).is_file():
        from instancediffusion.scene.formats.foreign.plain_text import read_labels

        names = read_labels(Path(text))
        if names is None:
            raise click.BadParameter(f"{text} names no class", param_hint="--labels")
        return names
    if "," not in text and looks_like_file(text):
        raise click.BadParameter(f"there is no file {text!r}", param_hint="--labels")
    return [name.strip() for name in text.split(",") if name.strip()]
