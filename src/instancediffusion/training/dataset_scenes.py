"""Stage "scenes" of labelled pictures: read a data set once, so that later stages only read what they need.

A picture is scaled and cut to one of the recipe's sizes, its locations along with it. Entries that cannot be used (no
picture, a broken file, nothing left in the crop) are logged and left out.

    scenes/dataset.json              what the scenes are made of; other settings are refused
    scenes/00000/ ...                one shard for each chunk of entries and size of picture
    scenes/entries-00000.json        the chunk's entries that were left out or mended; where it is, the chunk is done
"""

from __future__ import annotations

import json
import logging
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from instancediffusion.data import InstanceRecord, SceneCache, SceneRecord, write_shard
from instancediffusion.datasets import Example, ReadingOptions, SceneDataset, open_dataset
from instancediffusion.errors import Problem, SceneError, SettingsError
from instancediffusion.geometry import box_area, mask_box, mask_points, resample_scribble
from instancediffusion.runs import write_json
from instancediffusion.scene import Instance
from instancediffusion.scene import Mask as SceneMask
from instancediffusion.scene.ordering import depth_ranks
from instancediffusion.training.drawn_scenes import Mask, point_inside, scribble_inside, shrink
from instancediffusion.training.sections import DatasetConfig

log = logging.getLogger("instancediffusion.training")

Floats = npt.NDArray[np.float64]
Size = tuple[int, int]

SOURCE = "dataset.json"
LEAST_KEPT = 0.25
"""Fraction of an instance's box that has to be left in the crop; a scrap does not show what its caption says."""
SHAPE_TOLERANCE = 0.02
"""By how much the shapes (width / height) of a picture and of its annotations' canvas may differ."""


def read_scenes(config: DatasetConfig, folder: Path) -> None:
    """Write the shards that are not there yet.

    Args:
        config: the data set, and what is made of it.
        folder: holds the shards.

    Raises:
        SettingsError: the folder holds scenes of other settings, or no entry can be used.
        SceneError: the data set cannot be read at all.
    """
    dataset = _open(config)
    _check_folder(config, folder, len(dataset))
    starts = range(0, len(dataset), config.shard)
    chunks = [range(start, min(start + config.shard, len(dataset))) for start in starts]
    todo = [k for k in range(len(chunks)) if not _report(folder, k).exists()]
    loader: DataLoader[Any] = DataLoader(
        _Reader(config, dataset),
        batch_size=None,
        sampler=[number for k in todo for number in chunks[k]],
        num_workers=config.workers if todo else 0,
        collate_fn=_as_it_is,
    )
    read = iter(loader)
    for k in todo:
        _write_chunk(config, folder, k, chunks[k], read)
    if not SceneCache.paths(folder):
        raise SettingsError(
            f"dataset.path = {config.path!r}: none of {len(dataset)} entries can be used; {_report(folder, 0)} says why"
        )


def record(example: Example, config: DatasetConfig, seed: int = 0) -> SceneRecord:
    """Scale and crop an example to the size that suits it, and write down the annotations of its instances.

    A mask also gives a box, a point and a scribble where these are not given, the latter two on its visible part.
    Nothing is made up for an instance with a box alone.

    Args:
        example: the picture and its scene.
        config: sizes, slots, side of the bitmaps.
        seed: of points and scribbles that are drawn from masks.

    Raises:
        SceneError: the picture cannot be read, has another shape than the annotations say, or shows no instance.
    """
    scene, image = example.scene, example.pixels()
    height, width = image.shape[:2]
    if abs(math.log(width * scene.height / (height * scene.width))) > SHAPE_TOLERANCE:
        problem = f"the picture is {width} x {height} pixels, its annotations are for {scene.width} x {scene.height}"
        raise _refusal(example, problem, "replace one of the two")
    size, window = _cut((width, height), config.sizes)
    x0, y0, x1, y1 = window * (width, height, width, height)
    picture = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS, box=(x0, y0, x1, y1))
    rng = np.random.Generator(np.random.PCG64([19, seed]))
    visible_masks = example.visible or (None,) * len(scene.instances)
    found = []
    for index, (instance, visible) in enumerate(zip(scene.instances, visible_masks, strict=True)):
        captions = tuple(dict.fromkeys(text for text in (example.category(index), instance.caption) if text.strip()))
        made = _instance(instance, captions, visible, window, size, config.region_px, rng)
        found += [] if made is None else [made]
    if not found:
        raise _refusal(example, "no instance is left in the cut", "annotate it, or leave it out")
    areas = [0.0 if item.box is None else -float(box_area(item.box)) for item in found]
    kept = [found[k] for k in sorted(np.argsort(areas, kind="stable")[: config.max_instances])]
    ranks = depth_ranks([item.z_order for item in kept])
    ranked = tuple(replace(item, z_order=rank) for item, rank in zip(kept, ranks, strict=True))
    return SceneRecord(np.asarray(picture), (scene.prompt,), ranked)


def _instance(
    given: Instance,
    captions: tuple[str, ...],
    visible: SceneMask | None,
    window: Floats,
    size: Size,
    side: int,
    rng: np.random.Generator,
) -> InstanceRecord | None:
    """What is left of an instance in the crop; None if it is cut away."""
    mask, shown = _crop(given.mask, window, size), _crop(visible, window, size)
    if visible is not None and shown is None:
        return None
    whole = given.box.xyxy if given.box else mask_box(given.mask.array) if given.mask else None
    box = point = stroke = None
    if whole is not None:
        moved = _moved(np.reshape(whole, (2, 2)), window).ravel()
        box = moved.clip(0, 1)
        if box_area(box) < LEAST_KEPT * box_area(moved):
            return None
        if given.box is None and mask is not None:
            box = np.asarray(mask_box(mask))
    if given.point is not None:
        point = _inside(np.array([[given.point.x, given.point.y]]), window)
    if given.scribble is not None:
        stroke = _inside(resample_scribble(given.scribble.points), window)
    surface = mask if shown is None else shown
    if surface is not None and (point is None or not len(point)):
        point = np.asarray(point_inside(surface, rng)[None], float)
    if surface is not None and (stroke is None or len(stroke) < 2):
        stroke = np.asarray(scribble_inside(surface, rng), float)
    point = point if point is not None and len(point) else None
    stroke = resample_scribble(stroke) if stroke is not None and len(stroke) >= 2 else None
    if box is None and point is None and stroke is None:
        return None
    return InstanceRecord(
        captions=captions,
        box=None if box is None else box.astype(np.float32),
        point=None if point is None else point[0].astype(np.float32),
        scribble=None if stroke is None else stroke.astype(np.float32),
        mask_points=None if mask is None else mask_points(mask, rng, published=False).astype(np.float32),
        region=shrink(mask, side) if mask is not None else _cells(box, side),
        z_order=given.z_order,
    )


def _cut(size: Size, sizes: Sequence[Sequence[int]]) -> tuple[Size, Floats]:
    """The size of nearest shape, and the window (4,) xyxy, fractions of the picture, that is scaled to it."""
    width, height = min(((w, h) for w, h in sizes), key=lambda s: abs(math.log(s[0] / s[1] * size[1] / size[0])))
    scale = max(width / size[0], height / size[1])
    sides = np.minimum((width / (scale * size[0]), height / (scale * size[1])), 1)
    return (width, height), np.concatenate([(1 - sides) / 2, (1 + sides) / 2])


def _moved(points: Floats, window: Floats) -> Floats:
    """Points (..., 2), fractions of the picture, as fractions of the window."""
    moved: Floats = (points - window[:2]) / (window[2:] - window[:2])
    return moved


def _inside(points: Floats, window: Floats) -> Floats:
    """Those of (k, 2) points that lie in the window, as fractions of it."""
    moved = _moved(points, window)
    return moved[((moved >= 0) & (moved <= 1)).all(1)]


def _crop(mask: SceneMask | None, window: Floats, size: Size) -> Mask | None:
    """The window of a mask, resampled to (height, width) of `size` by nearest neighbour; None if nothing is set."""
    if mask is None:
        return None
    array, (width, height) = mask.array, size
    columns = (window[0] + (np.arange(width) + 0.5) / width * (window[2] - window[0])) * array.shape[1]
    rows = (window[1] + (np.arange(height) + 0.5) / height * (window[3] - window[1])) * array.shape[0]
    cropped = array[rows.astype(int)[:, None], columns.astype(int)]
    return cropped if cropped.any() else None


def _cells(box: Floats | None, side: int) -> Mask:
    """The cells that a box touches, (side, side); none without a box."""
    cells = np.zeros((side, side), np.bool_)
    if box is not None:
        x0, y0 = np.floor(box[:2] * side).astype(int)
        x1, y1 = np.ceil(box[2:] * side).astype(int)
        cells[y0:y1, x0:x1] = True
    return cells


def _refusal(example: Example, problem: str, fix: str) -> SceneError:
    return SceneError([Problem("$", problem, fix)], example.file_name or str(example.image_id))


def _open(config: DatasetConfig) -> SceneDataset:
    options = ReadingOptions(
        images=Path(config.images) if config.images else None,
        captions=Path(config.captions) if config.captions else None,
        labels=config.labels or None,
        split=config.split or None,
    )
    return open_dataset(config.path, config.format or None, options)


class _Reader(Dataset[Any]):
    """Records by the number of their entry; a process that does not share this one's memory opens the data set anew."""

    def __init__(self, config: DatasetConfig, dataset: SceneDataset) -> None:
        self.config = config
        self.dataset: SceneDataset | None = dataset

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config, "dataset": None}

    def __getitem__(self, number: int) -> tuple[SceneRecord | None, list[str]]:
        """The record, or None, and messages about it."""
        if self.dataset is None:
            self.dataset = _open(self.config)
        with warnings.catch_warnings(record=True) as mended:
            warnings.simplefilter("always")
            try:
                return record(self.dataset[number], self.config, number), [str(warning.message) for warning in mended]
            except SceneError as error:
                return None, [str(error)]
            except Exception as error:  # noqa: BLE001 - a broken file makes decoders raise anything
                return None, [f"{type(error).__name__}: {error}"]


def _as_it_is(item: Any) -> Any:
    return item


def _write_chunk(
    config: DatasetConfig,
    folder: Path,
    number: int,
    entries: range,
    read: Iterator[tuple[SceneRecord | None, list[str]]],
) -> None:
    start = time.monotonic()
    records: dict[Size, list[SceneRecord]] = {(width, height): [] for width, height in config.sizes}
    left_out, mended = {}, {}
    for entry in entries:
        made, messages = next(read)
        if made is None:
            left_out[entry] = messages[0]
            log.warning("entry %d left out: %s", entry, messages[0])
            continue
        records[made.image.shape[1], made.image.shape[0]].append(made)
        if messages:
            mended[entry] = messages
    for k, group in enumerate(records.values()):
        shard = number * len(config.sizes) + k
        if group and not (folder / f"{shard:05d}").exists():
            write_shard(folder, shard, group, config.max_instances)
    state = {"entries": [entries[0], entries[-1]], "left_out": left_out, "mended": mended}
    write_json(_report(folder, number), state)
    kept, rate = len(entries) - len(left_out), len(entries) / (time.monotonic() - start)
    log.info("read entries %d to %d: %d kept, %.0f pictures/s", entries[0], entries[-1], kept, rate)


def _report(folder: Path, number: int) -> Path:
    return folder / f"entries-{number:05d}.json"


def _check_folder(config: DatasetConfig, folder: Path, entries: int) -> None:
    """Note what the scenes are made of; `SettingsError` if those that are there were made of something else."""
    path = folder / SOURCE
    settings = {name: value for name, value in asdict(config).items() if name != "workers"}
    asked = json.loads(json.dumps({**settings, "entries": entries}))
    if path.exists():
        was = json.loads(path.read_text(encoding="utf-8"))
        if differ := [f"dataset.{name}" for name in asked if was.get(name) != asked[name]]:
            raise SettingsError(f"{folder}: made with other settings of {', '.join(differ)}; use another run folder")
    elif SceneCache.paths(folder):
        raise SettingsError(f"{folder}: holds scenes that are not of a data set; use another run folder")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, asked)
