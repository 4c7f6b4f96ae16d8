"""Scenes on disk: folders of a few hundred, each written whole, read through memory maps.

    scenes/00000/  images.npy boxes.npy ... texts.jsonl        one shard; a folder that can be seen is complete
    scenes/00000/  present.npy z_known.npy                     only where not everything is annotated of every instance
    scenes/00000/  latents.npy                                 added once the scenes are encoded
    scenes/00000/  latents-008.npy ...                         those of smaller pictures, by the side of their grid

Shards may be added while a training run reads. All pictures of a shard have one size; shards may differ.
"""

from __future__ import annotations

import bisect
import json
import os
import shutil
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from instancediffusion.data.records import SceneRecord, pack
from instancediffusion.errors import SettingsError
from instancediffusion.runs import atomic_path

TEXTS = "texts.jsonl"
LATENTS = "latents"

Array = npt.NDArray[Any]


def write_shard(folder: Path, number: int, records: Sequence[SceneRecord], slots: int) -> Path:
    """Write one shard; its folder appears only when everything in it is written."""
    target = folder / f"{number:05d}"
    temporary = folder / f".{number:05d}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, array in pack(records, slots).items():
        np.save(temporary / f"{name}.npy", array)
    lines = [
        json.dumps({"prompts": r.prompts, "captions": [i.captions for i in r.instances]}, ensure_ascii=False)
        for r in records
    ]
    (temporary / TEXTS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    temporary.rename(target)
    return target


class SceneCache:
    """All shards of a folder as one list of scenes.

    Args:
        folder: holds the shards.
        need_latents: count only shards whose pictures are encoded; True, or the names of the latents that are needed.

    Raises:
        SettingsError: the folder holds no (encoded) shard.
    """

    def __init__(self, folder: Path, *, need_latents: bool | Collection[str] = False) -> None:
        self.folder = folder
        named = () if isinstance(need_latents, bool) else need_latents
        self._needed = {LATENTS, *named} if need_latents else set()
        self._shards: list[_Shard] = []
        self._ends: list[int] = []
        self.refresh()
        if not self._shards:
            missing = (
                "encoded scenes; run the latents stage first" if need_latents else "scenes; run the scenes stage first"
            )
            raise SettingsError(f"{folder}: no {missing}")

    def refresh(self) -> None:
        """Take in shards that were added; the others keep their positions."""
        for path in self.paths(self.folder)[len(self._shards) :]:
            if not all((path / f"{name}.npy").exists() for name in self._needed):
                break  # in order, without gaps: the number of a scene never changes
            self._shards.append(_Shard(path))
            self._ends.append((self._ends[-1] if self._ends else 0) + self._shards[-1].size)

    @staticmethod
    def paths(folder: Path) -> list[Path]:
        """List the complete shards in order."""
        return sorted(p for p in folder.glob("[0-9]*") if p.is_dir()) if folder.is_dir() else []

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @property
    def image_px(self) -> int:
        """Side of the pictures in pixels; of pictures that are not square, the height of the first."""
        return int(self._shards[0].array("images").shape[1])

    @property
    def sizes(self) -> set[tuple[int, int]]:
        """The (width, height) of the pictures in pixels."""
        return {shard.picture_size for shard in self._shards}

    def same_size(self, index: int, count: int) -> npt.NDArray[np.int64]:
        """Numbers of those of the first `count` scenes whose pictures are as large as that of scene `index`."""
        size = self._locate(index)[0].picture_size
        ends = zip(self._shards, [0, *self._ends], self._ends, strict=False)
        found = [np.arange(start, min(end, count)) for shard, start, end in ends if shard.picture_size == size]
        return np.concatenate(found)

    def image(self, index: int) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8."""
        image: npt.NDArray[np.uint8] = self._get("images", index)
        return image

    def rows(self, name: str, indices: Sequence[int]) -> Array:
        """Stack the arrays `name` of some scenes: see `pack` and `latents_name`; latents are (C, h, w) float16."""
        return np.stack([self._get(name, index) for index in indices])

    def texts(self, index: int) -> tuple[list[str], list[list[str]]]:
        """Return the prompts of a scene, and the captions of each of its instances."""
        shard, row = self._locate(index)
        record = json.loads(shard.texts[row])
        return record["prompts"], record["captions"]

    def all_texts(self, scenes: int) -> list[str]:
        """Return every prompt and caption of the first scenes, in order, with repetitions."""
        found: list[str] = []
        for index in range(min(scenes, len(self))):
            prompts, captions = self.texts(index)
            found += prompts + [text for group in captions for text in group]
        return found

    def _get(self, name: str, index: int) -> Any:
        shard, row = self._locate(index)
        return shard.array(name)[row]

    def _locate(self, index: int) -> tuple[_Shard, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)}")
        number = bisect.bisect_right(self._ends, index)
        return self._shards[number], index - (self._ends[number - 1] if number else 0)


class _Shard:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.texts = (path / TEXTS).read_text(encoding="utf-8").splitlines()
        self.size = len(self.texts)
        self._arrays: dict[str, Array] = {}

    @cached_property
    def picture_size(self) -> tuple[int, int]:
        height, width = self.array("images").shape[1:3]
        return width, height

    def array(self, name: str) -> Array:
        if name not in self._arrays:
            path = self.path / f"{name}.npy"
            if name in ("present", "z_known") and not path.exists():  # all is annotated
                slots = self.array("z_order").shape
                self._arrays[name] = np.broadcast_to(True, (*slots, 4) if name == "present" else slots)
            else:
                self._arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        return self._arrays[name]


def latents_name(side: int, full: int) -> str:
    """Name of the latents whose grid has that side, where whole pictures have a grid of side `full`."""
    return LATENTS if side == full else f"{LATENTS}-{side:03d}"


def write_latents(path: Path, latents: Array, name: str = LATENTS) -> None:
    """Add latents (K, C, h, w) to a shard, whole or not at all."""
    with atomic_path(path / f"{name}.npy") as temporary:
        np.save(temporary, latents.astype(np.float16))
