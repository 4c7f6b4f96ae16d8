"""A scene that belongs to a picture of a COCO file, and the ids that tie such a file together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...model import Scene
from ..foreign.entries import whole_number


@dataclass(frozen=True)
class CocoScene:
    """A scene that belongs to a picture.

    Attributes:
        image_id: the picture's number in the COCO file, or its text where it is no number.
        file_name: the picture's file, as the COCO file names it.
        scene: what it shows.
        annotations: the entry of the file that each instance was read from; empty if it was not read.
    """

    image_id: int | str
    file_name: str
    scene: Scene
    annotations: tuple[Mapping[str, Any], ...] = field(default=(), compare=False, repr=False)


def coco_paths(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Return where an instances file and its captions file are written: `x.json` and `x.captions.json`."""
    instances = Path(path)
    return instances, instances.with_suffix(".captions" + (instances.suffix or ".json"))


Key = int | str
"""An id: a whole number, or a text that is none."""


def key_of(value: object) -> Key | None:
    """An id by one rule wherever it stands: 7, 7.0 and "7" are the same, other texts are ids as they are."""
    if isinstance(value, str):
        text = value.strip()
        number = whole_number(text)
        return number if number is not None and str(number) == text else text or None
    number = whole_number(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else number
