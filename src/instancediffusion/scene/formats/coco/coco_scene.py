"""A scene that belongs to a picture of a COCO file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...model import Scene


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
