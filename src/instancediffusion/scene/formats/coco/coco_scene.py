"""A scene that belongs to a picture of a COCO file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ...model import Scene


@dataclass(frozen=True)
class CocoScene:
    """A scene that belongs to a picture.

    Attributes:
        image_id: the picture's number in the COCO file, or its text where it is no number.
        file_name: the picture's file, as the COCO file names it.
        scene: what it shows.
    """

    image_id: int | str
    file_name: str
    scene: Scene


def coco_paths(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Return where an instances file and its captions file are written: `x.json` and `x.captions.json`."""
    instances = Path(path)
    return instances, instances.with_suffix(".captions" + (instances.suffix or ".json"))
