"""The pictures of an evaluation on disk: made in chunks, so that a run that is stopped goes on where it was."""

from __future__ import annotations

import io
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from instancediffusion.errors import PicturesError, SceneWarning
from instancediffusion.runs import ItemState, RunConflictError, RunDirectory, fingerprint
from instancediffusion.sampling import generators_for, start_noise
from instancediffusion.scene import Scene

CHUNK = 20
SETTINGS = "settings.json"


class Counter(Protocol):
    """A progress counter of some work."""

    def add(self, count: int) -> None:
        """Count finished units."""


class Asked(Protocol):
    """A picture to make, such as a `Layout`."""

    @property
    def scene(self) -> Scene:
        """What the model is given."""

    @property
    def seed(self) -> int:
        """Of the start noise."""


@dataclass(frozen=True)
class Made:
    """Pictures as they come from the model.

    Attributes:
        images: the pictures.
        seconds: wall time it took.
        warnings: what the model had to say of the scenes, such as a caption that is too long for it.
    """

    images: list[Image.Image]
    seconds: float
    warnings: list[str]


class Gallery:
    """A folder of pictures by group and number, all made with one set of settings.

    Args:
        path: the folder.
        decisive: JSON-like values of everything the pictures depend on beside group and number.
        replace: make pictures again that are there with other settings.

    Raises:
        RunConflictError: the folder holds pictures of other settings, and `replace` was not asked for.
    """

    def __init__(self, path: Path, decisive: Mapping[str, Any], *, replace: bool = False) -> None:
        self.run = RunDirectory(path, "evaluate")
        self._mark = fingerprint("evaluate", dict(decisive))
        if self.run.state("settings", self._mark) is ItemState.DIFFERENT and not replace:
            raise RunConflictError(
                f"{path} holds pictures of another model, of other settings or layouts ({SETTINGS} there says which); "
                "choose another folder, or add --overwrite"
            )
        text = json.dumps(decisive, indent=2) + "\n"
        self.run.put("settings", self._mark, {SETTINGS: text}, replace=True)

    def missing(self, group: str, count: int) -> list[range]:
        """The chunks of a group that are not there, as ranges of numbers."""
        chunks = [range(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK)]
        return [chunk for chunk in chunks if not self.run.is_complete(*self._item(group, chunk))]

    def put(self, group: str, chunk: range, made: Made) -> None:
        """Write a chunk."""
        files: dict[str, bytes | str] = {}
        for number, image in zip(chunk, made.images, strict=True):
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            files[self._name(group, number)] = buffer.getvalue()
        key, mark = self._item(group, chunk)
        # Settings agree, so what is replaced is at most a shorter chunk of the same pictures.
        record = {"pictures": len(files), "seconds": round(made.seconds, 3), "warnings": made.warnings}
        self.run.put(key, mark, files, record, replace=True)

    def picture(self, group: str, number: int) -> Image.Image:
        """Read a picture."""
        with Image.open(self.run.local(self._name(group, number))) as image:
            return image.convert("RGB")

    def summary(self) -> dict[str, Any]:
        """Say of the whole folder: seconds it took to make a picture, and warnings about scenes on the way."""
        self.run.settle()
        records = [item.record for item in self.run.items().values() if "seconds" in item.record]
        pictures = sum(record["pictures"] for record in records)
        seconds = sum(record["seconds"] for record in records)
        warned = sum(len(record["warnings"]) for record in records)
        return {"seconds_per_picture": round(seconds / max(pictures, 1), 3), "scene_warnings": warned}

    def _item(self, group: str, chunk: range) -> tuple[str, str]:
        return f"{group}/{chunk.start:05d}", fingerprint(self._mark, group, chunk.start, chunk.stop)

    @staticmethod
    def _name(group: str, number: int) -> str:
        return f"{group}/{number:05d}.png"


def make_pictures(
    pipeline: Any, layouts: Sequence[Asked], settings: Any, batch_size: int, made: Callable[[int], None]
) -> Made:
    """Generate one picture for each layout, each from the noise of its own seed.

    Args:
        pipeline: an `InstanceDiffusionPipeline`.
        layouts: what to generate.
        settings: `GenerationSettings`.
        batch_size: most pictures in one pipeline call.
        made: a callback, called with the number of pictures of each call.
    """
    start, images = time.perf_counter(), list[Image.Image]()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SceneWarning)
        for batch in _cut(layouts, batch_size):
            scenes = [layout.scene for layout in batch]
            latents = [
                start_noise(generators_for([layout.seed]), _shape(pipeline, layout.scene, settings))[0]
                for layout in batch
            ]
            output = pipeline(scenes, seed=0, latents=latents, settings=settings)
            if output.failures:
                raise PicturesError(next(iter(output.failures.values())))
            images += output.images
            made(len(batch))
    texts = dict.fromkeys(str(warning.message) for warning in caught if issubclass(warning.category, SceneWarning))
    return Made(images, time.perf_counter() - start, list(texts))


def _shape(pipeline: Any, scene: Any, settings: Any) -> tuple[int, int, int]:
    height, width = pipeline.picture_size(scene, settings)
    latent_px = pipeline.latent_px
    return int(pipeline.unet.config.in_channels), height // latent_px, width // latent_px


def _cut(layouts: Sequence[Asked], size: int) -> Iterator[Sequence[Asked]]:
    return (layouts[start : start + size] for start in range(0, len(layouts), size))
