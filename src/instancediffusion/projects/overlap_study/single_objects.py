"""One object, one box: captions that no grammar made, and how far the pictures of one caption differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from instancediffusion.errors import SettingsError
from instancediffusion.evaluation import TrueInstance, Truth
from instancediffusion.evaluation.seen import Picture, as_rgb
from instancediffusion.projects.emoji_world import Background, ObjectKind, World
from instancediffusion.projects.emoji_world.captions import Named
from instancediffusion.projects.emoji_world.painting import Placed, paint_layers
from instancediffusion.scene import Box, Instance, Scene

from .composites import Item, caption_of, prompt_of

FIRST_SEED = 70_000_000
"""Seed of the first request; no training uses it."""

SIZES = (0.45, 0.8)
COMPARED_PX = 32
"""Side to which what is compared is reduced, so that grain counts for nothing."""


@dataclass(frozen=True, eq=False)
class Request:
    """One picture to make.

    Attributes:
        scene: what the model is given.
        truth: what it is scored against, with the world's own picture of it.
        seed: of the start noise.
        box: (4,) x0 y0 x1 y1 fractions, where the object is asked for.
        composite: (H, W, 3) uint8, the world's own picture of it.
    """

    scene: Scene
    truth: Truth
    seed: int
    box: npt.NDArray[np.float64]
    composite: npt.NDArray[np.uint8]


def read_captions(path: Path) -> list[tuple[str, str]]:
    """Read a JSON list of {"caption": ..., "class": ...}; returns (caption, class).

    Raises:
        SettingsError: the file holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        found = [(str(value["caption"]), str(value["class"])) for value in values]
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f'{path}: expected a JSON list of {{"caption": ..., "class": ...}}, got something else ({error!r})'
        ) from error
    if not found:
        raise SettingsError(f"{path}: it holds no caption; give at least one")
    return found


def caption_requests(world: World, captions: Sequence[tuple[str, str]]) -> Iterator[Request]:
    """Ask for each caption once, alone in a box, the caption being the prompt, too.

    Args:
        world: draws the composites.
        captions: (caption, class); the class is one of the world.

    Raises:
        SettingsError: a class that is none of the world's.
    """
    for number, (caption, name) in enumerate(captions):
        seed = FIRST_SEED + number
        rng = np.random.Generator(np.random.PCG64([31, seed]))
        yield _request(world, _kind(world, name), rng, seed, caption, caption)


def seed_requests(world: World, objects: int, seeds: int) -> Iterator[list[Request]]:
    """Ask for some objects many times: one caption, one box, one prompt, and the noise of `seeds` seeds.

    The world's own pictures of them vary all that caption and prompt leave open: the sprite, its orientation, the
    background's details.

    Args:
        world: draws the composites, from all its sprites.
        objects: how many captions.
        seeds: pictures of each.
    """
    for number in range(objects):
        rng = np.random.Generator(np.random.PCG64([37, FIRST_SEED + number]))
        kind = world.kinds[int(rng.integers(len(world.kinds)))]
        ground = world.backgrounds[int(rng.integers(len(world.backgrounds)))]
        size = float(rng.uniform(*SIZES))
        colour = kind.colours[int(rng.integers(len(kind.colours)))] if kind.colours else None
        item = Item(kind.name, (0.5, 0.5), size, colour)
        caption, prompt = caption_of(item), prompt_of([item], ground.phrases[0])
        box = _box(world, kind, rng, size)
        yield [
            _drawn(world, kind, box, seed, caption, prompt, ground, colour)
            for seed in range(number * seeds, (number + 1) * seeds)
        ]


def mean_distance(pictures: Sequence[Picture], box: npt.NDArray[np.float64]) -> float:
    """Return the mean over all pairs of the root mean square difference within a box, where colours are 0..1.

    Args:
        pictures: two or more, of any size.
        box: (4,) x0 y0 x1 y1 fractions.
    """
    if len(pictures) < 2:
        raise SettingsError(f"{len(pictures)} picture has no distance to another; give two or more")
    small = np.stack([_small(as_rgb(picture), box) for picture in pictures])
    found = [float(np.sqrt(((small[i] - small[j]) ** 2).mean())) for i in range(len(small)) for j in range(i)]
    return float(np.mean(found))


def _small(picture: Image.Image, box: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    x0, y0, x1, y1 = (float(v) for v in box * np.array([picture.width, picture.height] * 2))
    cut = picture.resize((COMPARED_PX, COMPARED_PX), Image.Resampling.BOX, box=(x0, y0, x1, y1))
    return np.asarray(cut, np.float64) / 255


def _request(world: World, kind: ObjectKind, rng: np.random.Generator, seed: int, caption: str, prompt: str) -> Request:
    ground = world.backgrounds[int(rng.integers(len(world.backgrounds)))]
    box = _box(world, kind, rng, float(rng.uniform(*SIZES)))
    return _drawn(world, kind, box, seed, caption, prompt, ground, None)


def _box(world: World, kind: ObjectKind, rng: np.random.Generator, size: float) -> npt.NDArray[np.float64]:
    """Return a box of the shape of the class's first sprite, anywhere on the canvas."""
    width, height = world.sprites.picture(kind.name).size
    sides = np.array([width, height]) / max(width, height) * size
    corner = rng.random(2) * (1 - sides)
    return np.concatenate([corner, corner + sides])


def _drawn(
    world: World,
    kind: ObjectKind,
    box: npt.NDArray[np.float64],
    seed: int,
    caption: str,
    prompt: str,
    ground: Background,
    colour: str | None,
) -> Request:
    """Draw one of the class's sprites as large as the box allows."""
    rng = np.random.Generator(np.random.PCG64([41, seed]))
    side = world.spec.size
    looks = [one for one in kind.drawings if colour is None or colour == one.colour or colour in one.colours]
    look = looks[int(rng.integers(len(looks)))]
    facing = look.facings[int(rng.integers(2))] if look.facings else None
    shown = colour or look.colour
    longer = side * float((box[2:] - box[:2]).max())
    stamp = world.sprites.stamp(kind.name, shown, facing, longer, look)
    room = (box[2:] - box[:2]) * side
    fit = min(1.0, room[0] / stamp.mask.shape[1], room[1] / stamp.mask.shape[0])
    if fit < 1:
        stamp = world.sprites.stamp(kind.name, shown, facing, longer * fit, look)
    middle = (box[:2] + box[2:]) / 2 * side
    corner = [
        int(np.clip(round(at - length / 2), 0, side - length))
        for at, length in zip(middle[::-1], stamp.mask.shape, strict=True)
    ]
    image = ground.draw(rng, side, side)
    placed = Placed(Named(kind, shown, facing, look), stamp, (corner[0], corner[1]))
    paint_layers(image, [placed], [0])
    scene = Scene(prompt, (Instance(caption, box=Box(*(float(v) for v in box))),), width=side, height=side)
    wanted = TrueInstance(kind.name, colour, None, ("box",), box=box)
    composite = np.clip(image + 0.5, 0, 255).astype(np.uint8)
    return Request(scene, Truth((wanted,), composite, caption, scene), seed, box, composite)


def _kind(world: World, name: str) -> ObjectKind:
    found = {kind.name: kind for kind in world.kinds}
    if name not in found:
        raise SettingsError(f"class: {name!r} is no class of this world; take one of {', '.join(found)}")
    return found[name]
