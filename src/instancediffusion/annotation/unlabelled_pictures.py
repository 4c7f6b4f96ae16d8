"""What is annotated: a folder of pictures, or a data set that is labelled in part."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from instancediffusion.datasets import Example, ReadingOptions, SceneDataset, format_of, open_dataset
from instancediffusion.datasets.example import MAX_PICTURE_BYTES
from instancediffusion.datasets.file_access import MAX_ENTRIES, files_under, read_bounded
from instancediffusion.errors import SettingsError
from instancediffusion.scene import Scene
from instancediffusion.scene.formats.native import write_native
from instancediffusion.scene.limits import MIN_SIDE_PX, PICTURE_SUFFIXES

from .annotate import NO_WORDS

UNLABELLED = "pictures"
"""What `--from` calls pictures without labels."""


class PictureFolder:
    """The pictures of a folder and below it, in the order of their paths, without labels.

    Raises:
        SettingsError: there are none, or too many.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = files_under(folder, PICTURE_SUFFIXES)
        self._above = "" if folder == Path() else f"{folder.as_posix().rstrip('/')}/"
        if not 0 < len(self.files) <= MAX_ENTRIES:
            raise SettingsError(f"{folder}: holds {len(self.files)} pictures ({', '.join(PICTURE_SUFFIXES)})")

    @property
    def categories(self) -> Mapping[int | str, str]:
        """None are declared."""
        return {}

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        number = range(len(self))[index]
        name = self.key(number)
        # A scene needs a canvas, the canvas the picture's size: that of a first, empty one.
        blank = Example(Scene(NO_WORDS, (), MIN_SIDE_PX, MIN_SIDE_PX), self.files[number], name)
        return Example(Scene(NO_WORDS, (), *blank.size), self.files[number], name)  # formats number them as they come

    def key(self, index: int) -> str:
        """What a picture is called: its path in the folder."""
        return self.files[index].as_posix().removeprefix(self._above)


def open_pictures(path: Path, format: str | None = None, options: ReadingOptions | None = None) -> SceneDataset:
    """Open what is to be annotated.

    Args:
        path: a folder of pictures, or a data set of any known format.
        format: the name of the format; `pictures` takes a folder as unlabelled, whatever is in it. None finds it out.
        options: see `datasets.open_dataset`.

    Raises:
        SettingsError: there is no picture.
        SceneError: the data set cannot be read.
    """
    if format is None and path.is_dir():
        try:
            format_of(path)
        except SettingsError:
            format = UNLABELLED
    return PictureFolder(path) if format == UNLABELLED else open_dataset(path, format, options)


def key_of(dataset: SceneDataset, index: int) -> str:
    """The name of an entry in the records."""
    return dataset.key(index) if isinstance(dataset, PictureFolder) else f"entry-{index:08d}"


def content_of(example: Example) -> list[Any]:
    """JSON-like values that change whenever the picture or its labels do."""
    image = example.image
    if isinstance(image, Path):
        image = read_bounded(image, MAX_PICTURE_BYTES)
    data = image.tobytes() if isinstance(image, np.ndarray) else image or b""
    scene = write_native(example.scene)
    visible = [mask and mask.counts for mask in example.visible]
    return [hashlib.sha256(data).hexdigest(), scene, list(example.categories), visible]
