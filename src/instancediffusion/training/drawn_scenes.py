"""Stage "scenes": draw the world once, so that later stages only read."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from instancediffusion.data import InstanceRecord, SceneCache, SceneRecord, write_shard
from instancediffusion.data.drawn_world import DrawnSample, World
from instancediffusion.errors import SettingsError
from instancediffusion.geometry import mask_points, resample_scribble, scribble_from_mask
from instancediffusion.training.config import WorldConfig

log = logging.getLogger("instancediffusion.training")

Mask = npt.NDArray[np.bool_]


OpenWorld = Callable[[Mapping[str, Any]], World]
"""Opens a world with the options of a recipe (`world.options`)."""

_OPENERS: list[OpenWorld] = []


def register_world(open_: OpenWorld) -> None:
    """Say what opens the world of a recipe; the last one counts. The command line does so for its own world."""
    _OPENERS.append(open_)


def open_world(config: WorldConfig) -> World:
    """Open the registered world with the recipe's options.

    Raises:
        SettingsError: no world was registered.
    """
    if not _OPENERS:
        raise SettingsError(
            "world: nothing draws scenes here; give the stage a `world`, or name what opens one by "
            "`training.drawn_scenes.register_world`"
        )
    return _OPENERS[-1](config.options)


def draw_scenes(
    config: WorldConfig,
    folder: Path,
    world: World,
    *,
    only: slice | None = None,
) -> None:
    """Write the shards that are not there yet; may be called again to add scenes.

    Args:
        config: how many scenes, of which seeds.
        folder: holds the shards.
        world: draws them.
        only: shards to draw, to share the work among processes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = config.scenes + config.reversed_scenes
    numbers = list(range(-(-count // config.shard)))
    for number in numbers[only] if only else numbers:
        if (folder / f"{number:05d}").exists():
            continue
        start = time.monotonic()
        scenes = range(number * config.shard, min(count, (number + 1) * config.shard))
        records = [record(_sample(world, config, k), config.region_px) for k in scenes]
        write_shard(folder, number, records, config.max_instances)
        rate = len(scenes) / (time.monotonic() - start)
        log.info("drew shard %d of %d, %.0f scenes/s", number + 1, len(numbers), rate)


def _sample(world: World, config: WorldConfig, number: int) -> DrawnSample:
    """Draw a scene; those after the last are the first ones in the reversed order."""
    again = number >= config.scenes
    return world.sample(config.first_seed + number % config.scenes, "reversed" if again else None)


def record(sample: DrawnSample, region_px: int) -> SceneRecord:
    """Write down what training needs of a sample.

    Boxes, masks and scribbles of hidden parts are amodal (a user who plans a picture draws whole objects); points and
    scribbles lie on the visible part (a user who points at an object points at what can be seen).

    Args:
        sample: what was drawn.
        region_px: side of the masks.
    """
    rng = np.random.Generator(np.random.PCG64([17, sample.seed]))
    instances = tuple(
        InstanceRecord(
            captions=item.captions or (item.caption,),
            box=np.asarray(item.box, np.float32),
            point=point_inside(item.visible, rng),
            scribble=scribble_inside(item.visible, rng),
            mask_points=mask_points(item.amodal, rng, published=False).astype(np.float32),
            region=shrink(item.amodal, region_px),
            z_order=item.z_order,
        )
        for item in sample.instances
    )
    return SceneRecord(sample.image, sample.prompts or (sample.prompt,), instances)


def point_inside(mask: Mask, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """A set pixel as (x, y) fractions: more often than not the one nearest to the centre of mass, else any."""
    ys, xs = np.nonzero(mask)
    nearest = int(np.argmin((ys - ys.mean()) ** 2 + (xs - xs.mean()) ** 2))
    chosen = nearest if rng.random() < 0.6 else int(rng.integers(len(ys)))
    return np.array([(xs[chosen] + 0.5) / mask.shape[1], (ys[chosen] + 0.5) / mask.shape[0]], np.float32)


def scribble_inside(mask: Mask, rng: np.random.Generator, tries: int = 6) -> npt.NDArray[np.float32]:
    """Twenty points: half of the time random pixels as published, half of the time along a stroke, as people draw."""
    ys, xs = np.nonzero(mask)
    size = np.array([mask.shape[1], mask.shape[0]], float)
    for _ in range(tries if rng.random() < 0.5 else 0):
        corners = rng.integers(len(ys), size=int(rng.integers(2, 5)))
        stroke = resample_scribble(np.stack([xs[corners] + 0.5, ys[corners] + 0.5], axis=1))
        inside = mask[stroke[:, 1].astype(int), stroke[:, 0].astype(int)].mean()
        if inside >= 0.9 and np.ptp(stroke, axis=0).max() >= 3:
            return (stroke / size).astype(np.float32)
    return scribble_from_mask(mask, rng).astype(np.float32)


def shrink(mask: Mask, side: int) -> Mask:
    """Resize to (side, side): a cell is set where any of its pixels is, so that thin parts do not vanish."""
    height, width = mask.shape
    if height % side or width % side:
        rows, columns = (np.arange(side) * height) // side, (np.arange(side) * width) // side
        return np.asarray(mask[rows[:, None], columns])
    return np.asarray(mask.reshape(side, height // side, side, width // side).any(axis=(1, 3)))


def missing_latents(folder: Path, name: str = "latents") -> Iterator[Path]:
    """Shards whose pictures have no latents of that name yet, in order."""
    return (path for path in SceneCache.paths(folder) if not (path / f"{name}.npy").exists())
