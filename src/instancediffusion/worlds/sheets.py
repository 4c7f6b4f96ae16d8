"""Contact sheets of a world, for a person to look at before a model is trained on it."""

import numpy as np
from PIL import Image

from instancediffusion.rendering import contact_sheet

from .world import World

_PAPER = (206, 214, 212)
_READABLE = 224
"""Smallest side at which a prompt fits below its picture, in pixels."""


def object_sheet(world: World, cell: int = 96, columns: int = 12) -> Image.Image:
    """Draw every kind in its own colour, named, `<` marking the kinds that have a side (shown facing left)."""
    cells, labels = [], []
    for kind in world.kinds:
        cells.append(_cell(world.sprites.picture(kind.name, kind.colour, "left" if kind.facing else None), cell))
        labels.append(f"{'< ' if kind.facing else ''}{kind.name}")
    return contact_sheet(cells, columns, labels)


def colour_sheet(world: World, cell: int = 96) -> Image.Image:
    """Draw every kind that can be recoloured, in each of its colours, one kind a row."""
    kinds = [kind for kind in world.kinds if kind.colours]
    columns = max((len(kind.colours) for kind in kinds), default=1)
    cells, labels = [], []
    for kind in kinds:
        for colour in kind.colours:
            cells.append(_cell(world.sprites.picture(kind.name, colour, kind.facing), cell))
            labels.append(f"{colour} {kind.name}")
        for _ in range(columns - len(kind.colours)):
            cells.append(Image.new("RGB", (cell, cell), _PAPER))
            labels.append("")
    return contact_sheet(cells or [Image.new("RGB", (cell, cell), _PAPER)], columns, labels or [""])


def background_sheet(world: World, columns: int = 6) -> Image.Image:
    """Draw every background once, named."""
    size = world.spec.size
    cells = []
    for number, background in enumerate(world.backgrounds):
        pixels = background.draw(np.random.Generator(np.random.PCG64(number)), size, size)
        cells.append(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)))
    return contact_sheet(cells, columns, [background.name for background in world.backgrounds])


def sample_sheet(world: World, count: int = 24, columns: int = 6, seed: int = 0) -> Image.Image:
    """Draw the samples of `count` successive seeds, each with its prompt."""
    samples = [world.sample(seed + number) for number in range(count)]
    side = max(world.spec.size, _READABLE)
    pictures = [Image.fromarray(sample.image).resize((side, side), Image.Resampling.BICUBIC) for sample in samples]
    return contact_sheet(pictures, columns, [sample.prompt for sample in samples])


def _cell(sprite: Image.Image, side: int) -> Image.Image:
    """Put a sprite in the middle of a square."""
    small = sprite.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    cell = Image.new("RGB", (side, side), _PAPER)
    cell.paste(small, ((side - small.width) // 2, (side - small.height) // 2), small)
    return cell
