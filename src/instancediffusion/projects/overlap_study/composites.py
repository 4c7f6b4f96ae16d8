"""Layouts composed on purpose: chosen objects at chosen locations, in any depth order, with exact truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from instancediffusion.errors import SettingsError
from instancediffusion.projects.emoji_world import World, WorldInstance, WorldSample
from instancediffusion.projects.emoji_world.captions import Named
from instancediffusion.projects.emoji_world.kinds import Facing
from instancediffusion.projects.emoji_world.painting import Placed, paint_layers
from instancediffusion.scene.english import counted, listed, with_article


@dataclass(frozen=True)
class Item:
    """One object of a layout.

    Attributes:
        name: a class of the world.
        centre: (x, y) of its box, fractions of the canvas.
        size: longer side, as a fraction of the canvas.
        colour: a named colour; None keeps the sprite's own, and the caption states none.
        facing: its orientation, for classes that have one; None takes the sprite's own.
    """

    name: str
    centre: tuple[float, float]
    size: float
    colour: str | None = None
    facing: Facing | None = None

    @property
    def phrase(self) -> str:
        """Colour and name."""
        return f"{self.colour} {self.name}" if self.colour else self.name


def caption_of(item: Item) -> str:
    """Write an item's caption: colour, name and orientation, as far as they are stated."""
    return with_article(item.phrase) + (f" facing {item.facing}" if item.facing else "")


def prompt_of(items: Sequence[Item], where: str) -> str:
    """Write a prompt that says nothing of the order: all objects, and where they are ("on a wooden table")."""
    phrases = [item.phrase for item in items]
    names = [counted(phrase, phrases.count(phrase)) for phrase in dict.fromkeys(phrases)]
    return f"{listed(names)} {where}".strip()


def placed_box(world: World, item: Item) -> npt.NDArray[np.float64]:
    """Return the box x0 y0 x1 y1, fractions, that an item gets on the world's canvas."""
    return np.asarray(_place(world, item).box((world.spec.size, world.spec.size)), np.float64)


def compose(
    world: World,
    items: Sequence[Item],
    ranks: Sequence[int],
    background: str,
    where: str | None = None,
    seed: int = 0,
) -> WorldSample:
    """Paint a layout and write down its truth. All but the occlusion is the same in every depth order.

    Args:
        world: the sprites and the canvas.
        items: the objects; those that leave the canvas are moved back onto it.
        ranks: of each item, 0 is the farthest; a permutation.
        background: name of a background.
        where: what the prompt says of it; None takes the background's first phrase.
        seed: of the background.

    Raises:
        SettingsError: an unknown background, or ranks that are no permutation.
    """
    grounds = {ground.name: ground for ground in world.backgrounds}
    if background not in grounds:
        raise SettingsError(f"background: {background!r} is none of {', '.join(grounds)}")
    if sorted(ranks) != list(range(len(items))):
        raise SettingsError(f"ranks: {tuple(ranks)} is no permutation of 0..{len(items) - 1}")
    size = (world.spec.size, world.spec.size)
    placed = [_place(world, item) for item in items]
    image = grounds[background].draw(np.random.Generator(np.random.PCG64([5, seed])), *size)
    amodal, visible = paint_layers(image, placed, ranks)
    boxes = [one.box(size) for one in placed]
    instances = tuple(
        WorldInstance(
            caption_of(item),
            item.name,
            item.colour,
            placed[i].named.facing,
            ranks[i],
            boxes[i],
            amodal[i],
            visible[i],
            placed[i].parts(boxes[i], size),
        )
        for i, item in enumerate(items)
    )
    prompt = prompt_of(items, grounds[background].phrases[0] if where is None else where)
    return WorldSample(np.clip(image + 0.5, 0, 255).astype(np.uint8), prompt, background, instances, seed)


def _place(world: World, item: Item) -> Placed:
    kinds = {kind.name: kind for kind in world.kinds}
    if item.name not in kinds:
        raise SettingsError(f"{item.name!r} is no class of this world; take one of {', '.join(kinds)}")
    kind, side = kinds[item.name], world.spec.size
    facing = item.facing or kind.facing
    stamp = world.sprites.stamp(item.name, item.colour or kind.colour, facing, item.size * side)
    corner = []
    for middle, length in zip((item.centre[1], item.centre[0]), stamp.mask.shape, strict=True):
        corner.append(int(np.clip(round(middle * side - length / 2), 0, side - length)))
    return Placed(Named(kind, item.colour or kind.colour, facing), stamp, (corner[0], corner[1]))
