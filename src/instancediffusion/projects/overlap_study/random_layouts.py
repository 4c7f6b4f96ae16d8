"""Random layouts with a chosen overlap: two objects whose boxes have a given IoU, and others that overlap nothing."""

from __future__ import annotations

import dataclasses

import numpy as np

from instancediffusion.geometry import box_iou
from instancediffusion.projects.emoji_world import World

from .composites import Item, compose, placed_box

TRIES = 200
NEAR_ENOUGH = 0.02
LEAST_FREE = 0.25
"""Fraction of each object that no other one covers, in any order: none is hidden whole."""


def random_items(
    world: World, rng: np.random.Generator, *, iou: float, same: bool, count: int, ratio: float = 1.0
) -> tuple[Item, ...] | None:
    """Sample objects; the first two overlap as asked, the others do not overlap.

    Args:
        world: where the classes are from.
        rng: generator.
        iou: of the first two boxes; 0 puts them side by side.
        same: give both one class, in two colours if it has several.
        count: objects, 2 or more.
        ratio: longer side of the first to that of the second, 1 or more.

    Returns:
        None if no such arrangement was found: a large ratio allows no large IoU.
    """
    for _ in range(TRIES):
        large = float(rng.uniform(0.3, 0.42)) * min(ratio, 1.6) ** 0.5
        pair = [_described(world, rng, large), _described(world, rng, large / ratio)]
        if same:
            pair[1] = _alike(world, rng, pair[0], large / ratio)
        elif pair[0].name == pair[1].name:
            continue
        if rng.random() < 0.5:
            pair.reverse()
        moved = _slide(world, rng, pair[0], pair[1], iou)
        if moved is None:
            continue
        items = _others(world, rng, [pair[0], moved], count)
        if items is not None and _all_free(world, items, overlap=iou > 0):
            return tuple(items)
    return None


def _described(world: World, rng: np.random.Generator, size: float) -> Item:
    kind = world.kinds[int(rng.integers(len(world.kinds)))]
    colour = kind.colours[int(rng.integers(len(kind.colours)))] if kind.colours else None
    facing = kind.facings[int(rng.integers(2))] if kind.facings else None
    x, y = rng.uniform(0.3, 0.7, 2)
    return Item(kind.name, (float(x), float(y)), size, colour, facing)


def _alike(world: World, rng: np.random.Generator, first: Item, size: float) -> Item:
    """Return an object of the same class, of another colour and orientation where it has them."""
    kind = next(kind for kind in world.kinds if kind.name == first.name)
    others = [colour for colour in kind.colours if colour != first.colour]
    colour = others[int(rng.integers(len(others)))] if others else first.colour
    facing = kind.facings[int(rng.integers(2))] if kind.facings else None
    return dataclasses.replace(first, size=size, colour=colour, facing=facing)


def _slide(world: World, rng: np.random.Generator, first: Item, second: Item, iou: float) -> Item | None:
    """Move the second away from the first, in a random direction, until their boxes have the IoU."""
    angle = float(rng.uniform(0, 2 * np.pi))
    fixed = placed_box(world, first)
    wanted = iou if iou > 0 else 1e-6

    def at(distance: float) -> tuple[Item, float]:
        x, y = first.centre[0] + distance * np.cos(angle), first.centre[1] + distance * np.sin(angle)
        moved = dataclasses.replace(second, centre=(float(x), float(y)))
        return moved, float(box_iou(placed_box(world, moved), fixed)[0, 0])

    near, far = 0.0, 1.0
    for _ in range(14):
        middle = (near + far) / 2
        near, far = (middle, far) if at(middle)[1] > wanted else (near, middle)
    moved, found = at(far)
    x0, y0, x1, y1 = placed_box(world, moved)
    shifted = abs((x0 + x1) / 2 - moved.centre[0]) + abs((y0 + y1) / 2 - moved.centre[1]) > 0.02
    return None if shifted or abs(found - iou) > NEAR_ENOUGH else moved


def _others(world: World, rng: np.random.Generator, items: list[Item], count: int) -> list[Item] | None:
    """Add objects of other classes whose boxes overlap no other."""
    for _ in range(count - len(items)):
        for _ in range(TRIES):
            new = _described(world, rng, float(rng.uniform(0.18, 0.26)))
            x, y = rng.uniform(0.12, 0.88, 2)
            new = dataclasses.replace(new, centre=(float(x), float(y)))
            boxes = np.array([placed_box(world, item) for item in items])
            if new.name not in {i.name for i in items} and not box_iou(placed_box(world, new), boxes).any():
                items.append(new)
                break
        else:
            return None
    return items


def _all_free(world: World, items: list[Item], *, overlap: bool) -> bool:
    masks = [item.amodal for item in compose(world, items, range(len(items)), world.backgrounds[0].name).instances]
    depth = np.sum(masks, 0)
    shared = [int((mask & (depth > 1)).sum()) / max(int(mask.sum()), 1) for mask in masks]
    if overlap and min(shared[:2]) < 0.03:
        return False
    return max(shared) <= 1 - LEAST_FREE
