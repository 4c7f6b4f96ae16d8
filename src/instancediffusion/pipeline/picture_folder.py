"""Pictures of several scenes into a folder, one item for each scene and seed; what is there is not made again."""

from __future__ import annotations

import io
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from instancediffusion import __version__
from instancediffusion.errors import PicturesError
from instancediffusion.pipeline.layered_output import layer_files, openraster
from instancediffusion.pipeline.output import GenerationOutput
from instancediffusion.rendering import render_overlay
from instancediffusion.runs import RunConflictError, RunDirectory, fingerprint
from instancediffusion.sampling import generators_for
from instancediffusion.scene import Scene
from instancediffusion.scene.notes import png_bytes
from instancediffusion.settings import GenerationSettings

_LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "tokenizers", "numpy", "pillow")


@dataclass(frozen=True)
class Picture:
    """One picture to make.

    Attributes:
        name: of the scene, unique in the folder.
        scene: the scene.
        seed: of its generator.
    """

    name: str
    scene: Scene
    seed: int

    @property
    def key(self) -> str:
        """Its name in the manifest; the file is `<key>.png`."""
        return f"{self.name}_{self.seed}"


class PictureFolder:
    """A folder of generated pictures with a manifest.

    Args:
        path: the folder.
        model: what decides a picture beside scene, settings and seed, and can be stated before anything is loaded: the
            model's name, the hash of its weights, the type of its numbers, the refiner.
        settings: the settings of the run, defaults filled in.
        replace: make pictures again that are there with other settings.
    """

    def __init__(
        self, path: Path, model: Mapping[str, Any], settings: GenerationSettings, *, replace: bool = False
    ) -> None:
        self.run = RunDirectory(path, "generate")
        self.model = dict(model)
        self.settings = settings.to_dict()
        self._decisive = settings.decisive()
        self.replace = replace
        self._written: dict[int, tuple[Scene, dict[str, Any]]] = {}

    def pending(self, pictures: Sequence[Picture]) -> tuple[list[Picture], list[tuple[Picture, RunConflictError]]]:
        """The pictures that are not there yet.

        Returns:
            Those to be made, and those whose file name is taken: by a picture of other settings, or a file that no run
            wrote. With `replace` there are none of the latter.
        """
        missing, taken = list[Picture](), list[tuple[Picture, RunConflictError]]()
        for picture in pictures:
            mark = self._fingerprint(picture)
            if self.run.is_complete(picture.key, mark) or self._made_before(picture):
                continue
            try:
                self.run.check(picture.key, mark, [f"{picture.key}.png"], replace=self.replace)
                self._check_overlay(picture)
            except RunConflictError as error:
                taken.append((picture, error))
            else:
                missing.append(picture)
        return missing, taken

    def _made_before(self, picture: Picture) -> bool:
        """Whether a version that had fewer settings made this very picture: those it lacked have their defaults."""
        item = self.run.item(picture.key)
        if item is None or not self.run.is_complete(picture.key, item.fingerprint):
            return False
        record, usual = item.record, GenerationSettings().to_dict()
        recorded = record.get("settings")
        if not isinstance(recorded, Mapping) or not recorded.keys() < usual.keys():
            return False
        filled = {**usual, **recorded}
        return (
            (record.get("seed"), record.get("model")) == (picture.seed, self.model)
            and record.get("scene") == self._scene_data(picture.scene)
            and all(filled[name] == value for name, value in self._decisive.items())
        )

    def _check_overlay(self, picture: Picture) -> None:
        key, mark = f"{picture.name}_overlay", fingerprint("overlay", self._scene_data(picture.scene))
        self.run.check(key, mark, [f"{key}.png"], replace=self.replace)

    def put_overlay(self, name: str, scene: Scene, font: Path | None = None) -> Path | None:
        """Draw `<name>_overlay.png`, lettered in a typeface; returns None if it is there, whatever its typeface."""
        key, mark = f"{name}_overlay", fingerprint("overlay", self._scene_data(scene))
        if self.run.is_complete(key, mark):
            return None
        buffer = io.BytesIO()
        render_overlay(scene, font=font).save(buffer, "PNG")
        self.run.put(key, mark, {f"{key}.png": buffer.getvalue()}, {"scene": scene.to_dict()}, replace=self.replace)
        return self.run.path / f"{key}.png"

    def put(self, picture: Picture, output: GenerationOutput, row: int, record: Mapping[str, Any]) -> Path:
        """Write picture `row` of an output, and its line in the manifest.

        Args:
            picture: which one it is.
            output: what the pipeline returned.
            row: its index in there.
            record: more to keep in the manifest.
        """
        image = output.images[row]
        made = {
            "scene": picture.scene.to_dict(),
            "seed": picture.seed,
            "settings": self.settings,
            "model": self.model,
            "size": [image.height, image.width],
        }
        batch = {
            "pictures": len(output.images),
            "network_rows": output.network_rows,
            "seconds": {stage: round(seconds, 4) for stage, seconds in output.timings.items()},
        }
        data = png_bytes(image, {**made, "version": __version__})
        files = {f"{picture.key}.png": data}
        if output.layers and output.layers[row]:
            files[f"{picture.key}.ora"] = openraster(output.layers[row])
            parts = layer_files(output.layers[row])
            files |= {f"{picture.key}_layers/{name}": content for name, content in parts.items()}
        self.run.put(
            picture.key,
            self._fingerprint(picture),
            files,
            {**made, "batch": batch, "versions": versions(), **record},
            replace=self.replace,
        )
        return self.run.path / f"{picture.key}.png"

    def _fingerprint(self, picture: Picture) -> str:
        data = self._scene_data(picture.scene)
        return fingerprint("picture", data, picture.seed, self._decisive, self.model)

    def _scene_data(self, scene: Scene) -> dict[str, Any]:
        """A scene as it is hashed. One of many seeds is written out once; it is kept, so that its id stays its own."""
        written = self._written.get(id(scene))
        if written is None:
            written = self._written[id(scene)] = (scene, scene.to_dict())
        return written[1]


Call = tuple[list[Scene], list[int], list[Picture]]
"""What one pipeline call makes: its scenes, its seeds, and the pictures in the order of its output."""

Make = Callable[[Sequence[Scene], Sequence[int]], GenerationOutput]
"""Calls the pipeline with scenes and seeds."""


def batches(pictures: Sequence[Picture], size: int) -> Iterator[Call]:
    """Cut pictures into pipeline calls of at most `size` images.

    A call draws each of its scenes with each of its seeds, so scenes share a call if they miss the same seeds.

    Yields:
        Scenes, seeds, and the pictures in the order of the call's output.
    """
    missing: dict[str, list[Picture]] = {}
    for picture in pictures:
        missing.setdefault(picture.name, []).append(picture)
    alike: dict[tuple[int, ...], list[list[Picture]]] = {}
    for group in missing.values():
        for start in range(0, len(group), size):
            part = group[start : start + size]
            alike.setdefault(tuple(p.seed for p in part), []).append(part)
    for seeds, groups in alike.items():
        scenes_per_call = max(1, size // len(seeds))
        for start in range(0, len(groups), scenes_per_call):
            together = groups[start : start + scenes_per_call]
            yield [part[0].scene for part in together], list(seeds), [p for part in together for p in part]


def paired(pictures: Sequence[Picture], size: int) -> Iterator[Call]:
    """Cut pictures into calls that draw each scene with the seed beside it; yields as `batches` does."""
    for start in range(0, len(pictures), size):
        part = list(pictures[start : start + size])
        yield [picture.scene for picture in part], [picture.seed for picture in part], part


def draw_paired(pipeline: Any, settings: GenerationSettings) -> Make:
    """What makes the pictures of `paired`: they are those that each scene has with its seed in a call of its own."""
    return lambda scenes, seeds: pipeline(list(scenes), generator=generators_for(list(seeds)), settings=settings)


def generate_pictures(
    make: Make,
    folder: PictureFolder,
    pictures: Sequence[Picture],
    *,
    batch_size: int,
    record: Mapping[str, Any],
    written: Callable[[Path], None],
    cut: Callable[[Sequence[Picture], int], Iterator[Call]] = batches,
) -> list[tuple[Picture, Exception]]:
    """Make pictures and write each as soon as its batch is done.

    A batch that fails is made again one picture at a time, so that one that cannot be made takes no other with it.

    Args:
        make: calls the pipeline with scenes and the seeds of each.
        folder: where they go.
        pictures: what to make, as `PictureFolder.pending` returned it.
        batch_size: most pictures in one pipeline call.
        record: more to keep in the manifest, such as the device.
        written: called with the path of each picture.
        cut: cuts pictures into calls that `make` understands.

    Returns:
        The pictures that could not be made, each with its reason.
    """
    failed: list[tuple[Picture, Exception]] = []
    try:
        for call in cut(pictures, batch_size):
            for picture, result, row in draw_call(make, call):
                if isinstance(result, Exception):
                    failed.append((picture, result))
                else:
                    written(folder.put(picture, result, row, record))
    finally:
        folder.run.settle()
    return failed


def draw_call(make: Make, call: Call) -> list[tuple[Picture, GenerationOutput | Exception, int]]:
    """Make the pictures of a call; of one that fails each by itself.

    Returns:
        Each picture with the output and its row there, or with the reason why there is none.
    """
    scenes, seeds, order = call
    try:
        output = make(scenes, seeds)
    except Exception as error:  # noqa: BLE001  whatever it is, the other pictures do not depend on it
        if len(order) == 1:
            return [(order[0], error, 0)]
        return [one for picture in order for one in draw_call(make, ([picture.scene], [picture.seed], [picture]))]
    failures = output.failures
    return [
        (picture, PicturesError(failures[row]) if row in failures else output, row) for row, picture in enumerate(order)
    ]


def versions() -> dict[str, str]:
    """The versions of what a picture depends on."""
    installed = {name: metadata.version(name) for name in _LIBRARIES}
    return {"instancediffusion": __version__, "python": platform.python_version(), **installed}
