"""The suites of random layouts: both orders of each (`flip`), and factors crossed (`grid`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from instancediffusion.projects.emoji_world import World
from instancediffusion.scene import KINDS

from .cells import Cell
from .composites import Item, compose
from .random_layouts import random_items
from .telling import tell, truth_of

FLIP_SEED, GRID_SEED = 50_000_000, 60_000_000
"""First seeds of the layouts; no training and no evaluation uses them."""

IOUS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
COUNTS = (2, 3, 4)
RATIOS = (1.0, 2.0)
CLASSES = ("different", "same")


def flip_cells(world: World, count: int, kinds: Sequence[str] = KINDS) -> Iterator[Cell]:
    """Yield `count` layouts of different and `count` of the same class, by each kind of location, in both orders."""
    for classes, number in product(CLASSES, range(count)):
        rng = np.random.Generator(np.random.PCG64([FLIP_SEED + number, CLASSES.index(classes)]))
        items = None
        while items is None:  # the ratios here allow every IoU asked for, so this ends
            iou = float(rng.uniform(0.1, 0.5))
            ratio = float(rng.uniform(1.0, 1.4))
            size = 2 + int(rng.random() < 1 / 3)
            items = random_items(world, rng, iou=iou, same=classes == "same", count=size, ratio=ratio)
        factors = {"classes": classes, "overlap": _bin(iou)}
        yield from both_orders(world, items, f"flip/{classes}/{number:04d}", "flip", number, factors, kinds)


def grid_cells(world: World, count: int, kinds: Sequence[str] = KINDS) -> Iterator[Cell]:
    """Yield `count` layouts, in both orders, of every combination of factors that exists."""
    cases = list(product(IOUS, CLASSES, COUNTS, RATIOS))
    for case, (iou, classes, objects, ratio) in enumerate(cases):
        for number in range(count):
            rng = np.random.Generator(np.random.PCG64([GRID_SEED + number, case]))
            items = random_items(world, rng, iou=iou, same=classes == "same", count=objects, ratio=ratio)
            if items is None:
                continue
            factors = {"overlap": f"{iou:g}", "classes": classes, "objects": str(objects), "ratio": f"{ratio:g}"}
            key = f"grid/{case:03d}/{number:04d}"
            yield from both_orders(world, items, key, "grid", number, factors, kinds)


def both_orders(
    world: World, items: Sequence[Item], key: str, suite: str, seed: int, factors: dict[str, str], kinds: Sequence[str]
) -> Iterator[Cell]:
    """Yield a layout in both orders of its first two objects, given by each kind of location, or "box+mask" by both."""
    ground = world.backgrounds[seed % len(world.backgrounds)].name
    others = list(range(2, len(items)))
    samples = [compose(world, items, [*ranks, *others], ground, seed=seed) for ranks in ((1, 0), (0, 1))]
    for kind in kinds:
        for front, sample in enumerate(samples):
            scene = tell(sample, tuple(kind.split("+")))
            name = f"{key}/{kind}"
            truth = truth_of(sample, scene, name)
            more = {"told": kind, **factors}
            yield Cell(f"{name}/{front}", suite, suite, scene, truth, seed, more, (0, 1), front, name)


def _bin(iou: float) -> str:
    return "IoU .1-.23" if iou < 0.23 else "IoU .23-.37" if iou < 0.37 else "IoU .37-.5"
