"""Contact sheets of a world, for visual inspection before a model is trained on it."""

from itertools import cycle

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from instancediffusion.rendering import contact_sheet

from .kinds import Drawing, Facing, ObjectKind
from .world import World

SHEETS = ("objects.png", "colours.png", "facings.png", "parts.png", "backgrounds.png", "samples.png", "orders.png")
"""The files of `all_sheets`."""

_PAPER = (206, 214, 212)
_INKS = ((214, 32, 40), (20, 90, 220), (0, 130, 60), (150, 40, 170))
_READABLE = 224
"""Smallest width at which a prompt fits below its picture, in pixels."""


def all_sheets(world: World, count: int, seed: int) -> dict[str, Image.Image]:
    """Draw every contact sheet, by the name of its file.

    Args:
        world: the world to show.
        count: samples.
        seed: of the first.
    """
    orders = order_sheet(world, -(-count // 4), seed=seed)
    plain = (object_sheet, colour_sheet, facing_sheet, part_sheet, background_sheet)
    drawn = [draw(world) for draw in plain]
    return dict(zip(SHEETS, [*drawn, sample_sheet(world, count, seed=seed), orders], strict=True))


def object_sheet(world: World, cell: int = 96, columns: int = 12) -> Image.Image:
    """Draw every sprite in its own colour, named; `<` marks those with an orientation (shown facing left)."""
    tiles, labels = [], []
    for kind, look in _drawn(world):
        side: Facing | None = "left" if look.facing else None
        tiles.append(_tile(world.sprites.picture(kind.name, look.colour, side, drawing=look), cell))
        labels.append(f"{'< ' if look.facing else ''}{kind.name}")
    return contact_sheet(tiles, columns, labels)


def colour_sheet(world: World, cell: int = 96) -> Image.Image:
    """Draw every sprite that can be recoloured, in each of its colours, one sprite a row."""
    drawn = [(kind, look) for kind, look in _drawn(world) if look.colours]
    columns = max((len(look.colours) for _, look in drawn), default=1)
    tiles, labels = [], []
    for kind, look in drawn:
        for colour in look.colours:
            tiles.append(_tile(world.sprites.picture(kind.name, colour, look.facing, drawing=look), cell))
            labels.append(f"{colour} {kind.name}")
        for _ in range(columns - len(look.colours)):
            tiles.append(_empty(cell))
            labels.append("")
    return contact_sheet(tiles or [_empty(cell)], columns, labels or [""])


def part_sheet(world: World, cell: int = 160, columns: int = 8) -> Image.Image:
    """Draw every sprite with annotated parts and their boxes, in each orientation it has."""
    tiles, labels = [], []
    for kind, look in _drawn(world):
        for side in (look.facings or (None,)) if look.parts else ():
            sprite = world.sprites.picture(kind.name, look.colour, side, drawing=look)
            picture = _tile(sprite, cell)
            scale = cell / max(sprite.size)
            wide, tall = sprite.width * scale, sprite.height * scale
            left, top = (cell - wide) / 2.0, (cell - tall) / 2.0
            draw = ImageDraw.Draw(picture)
            boxes = look.parts_facing(side)
            for ink, (x0, y0, x1, y1) in zip(cycle(_INKS), boxes.values(), strict=False):
                corners = (left + x0 * wide, top + y0 * tall, left + x1 * wide - 1, top + y1 * tall - 1)
                draw.rectangle(corners, outline=ink, width=2)
            tiles.append(picture)
            labels.append(f"{kind.name}: {', '.join(boxes)}")
    return contact_sheet(tiles or [_empty(cell)], columns, labels or [""])


def facing_sheet(world: World, cell: int = 96, columns: int = 12) -> Image.Image:
    """Draw every sprite that has an orientation, facing left, then facing right."""
    sides = [(kind, look, side) for kind, look in _drawn(world) for side in look.facings]
    tiles = [
        _tile(world.sprites.picture(kind.name, look.colour, side, drawing=look), cell) for kind, look, side in sides
    ]
    labels = [f"{kind.name} {side}" for kind, _, side in sides]
    return contact_sheet(tiles or [_empty(cell)], columns, labels or [""])


def background_sheet(world: World, columns: int = 6) -> Image.Image:
    """Draw every background once, named."""
    tiles = []
    for number, background in enumerate(world.backgrounds):
        pixels = background.draw(np.random.Generator(np.random.PCG64(number)), *world.spec.canvas)
        tiles.append(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)))
    return contact_sheet(tiles, columns, [background.name for background in world.backgrounds])


def sample_sheet(world: World, count: int = 24, columns: int = 6, seed: int = 0) -> Image.Image:
    """Draw the samples of `count` successive seeds, each with its prompt."""
    samples = [world.sample(seed + number) for number in range(count)]
    pictures = [_readable(sample.image) for sample in samples]
    return contact_sheet(pictures, columns, [sample.prompt for sample in samples])


def order_sheet(world: World, count: int = 12, columns: int = 6, seed: int = 0) -> Image.Image:
    """Draw overlapping scenes in both orders, each beside the other."""
    pictures, labels = [], []
    for number in range(seed, seed + 50 * count):
        pair = [world.sample(number), world.sample(number, order="reversed")]
        if (pair[0].image != pair[1].image).any():
            pictures += [_readable(one.image) for one in pair]
            labels += [one.prompt for one in pair]
        if len(pictures) >= 2 * count:
            break
    return contact_sheet(pictures or [_empty(_READABLE)], columns, labels or [""])


def _readable(pixels: NDArray[np.uint8]) -> Image.Image:
    """Enlarge a sample that is too narrow for its prompt."""
    picture = Image.fromarray(pixels)
    scale = max(1.0, _READABLE / picture.width)
    size = (round(picture.width * scale), round(picture.height * scale))
    return picture.resize(size, Image.Resampling.BICUBIC)


def _drawn(world: World) -> list[tuple[ObjectKind, Drawing]]:
    return [(kind, look) for kind in world.kinds for look in kind.drawings]


def _empty(side: int) -> Image.Image:
    return Image.new("RGB", (side, side), _PAPER)


def _tile(sprite: Image.Image, side: int) -> Image.Image:
    """Centre a sprite on a square tile."""
    small = sprite.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    tile = Image.new("RGB", (side, side), _PAPER)
    tile.paste(small, ((side - small.width) // 2, (side - small.height) // 2), small)
    return tile
