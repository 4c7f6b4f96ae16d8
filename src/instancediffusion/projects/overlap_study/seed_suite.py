"""The tests that started the study, in words of the synthetic world."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from instancediffusion.projects.emoji_world import World, WorldSample
from instancediffusion.projects.emoji_world.kinds import Facing
from instancediffusion.scene import KINDS, Box, Instance, Scene, without_order

from .cells import Cell
from .composites import Item, compose
from .telling import free_part, tell, truth_of

DISTANCES = (0.32, 0.26, 0.2, 0.15, 0.1, 0.06)
"""Between the points of two balloons, in fractions of the canvas; a balloon is .2 wide."""


def seed_cells(world: World, seeds: int) -> Iterator[Cell]:
    """Yield Tests 0 to 5, every scene with as many seeds; see the sections for what replaces what."""
    for test in (_test0, _test1, _test2, _test3, _test4, _test5):
        yield from test(world, seeds)


def _cells(sample_cell: Cell, seeds: int) -> Iterator[Cell]:
    for seed in range(seeds):
        twins = None if sample_cell.twins is None else f"{sample_cell.twins}/{seed}"
        yield dataclasses.replace(sample_cell, key=f"{sample_cell.key}/{seed:03d}", seed=seed, twins=twins)


def _test0(world: World, seeds: int) -> Iterator[Cell]:
    items = (Item("dog", (0.42, 0.5), 0.55), Item("cupcake", (0.82, 0.72), 0.26))
    sample = compose(world, items, (0, 1), "kitchen")
    for kind in KINDS:
        scene = tell(sample, (kind,), order=False)
        key = f"test0/{kind}"
        cell = Cell(key, "seed", "test0", scene, truth_of(sample, scene, key), 0, {"told": kind}, targets=(0,))
        yield from _cells(cell, seeds)


def _test1(world: World, seeds: int) -> Iterator[Cell]:
    for distance in DISTANCES:
        across, up = distance / 2, distance * 0.866
        middle = (0.68, 0.36)
        offsets = ((-across, up / 3), (across, up / 3), (0.0, -2 * up / 3))
        balloons = [
            Item("balloon", (middle[0] + x, middle[1] + y), 0.2, colour)
            for colour, (x, y) in zip(("yellow", "blue", "red"), offsets, strict=True)
        ]
        sample = compose(
            world, (*balloons, Item("panda", (0.26, 0.66), 0.42)), (1, 2, 3, 0), "meadow", "in a lush green park"
        )
        scene = tell(sample, ("point",), order=False, centres=True)
        key = f"test1/{distance:.2f}"
        factors = {"distance": f"{distance:.2f}"}
        cell = Cell(key, "seed", "test1", scene, truth_of(sample, scene, key), 0, factors, targets=(0, 1, 2))
        yield from _cells(cell, seeds)


def _test2(world: World, seeds: int) -> Iterator[Cell]:
    words = {
        0: "a red apple in front of a yellow pear on a wooden table",
        1: "a yellow pear in front of a red apple on a wooden table",
    }
    for kind in ("box", "point"):
        for side, (x_apple, x_pear) in (("left", (0.42, 0.57)), ("right", (0.57, 0.42))):
            items = (Item("apple", (x_apple, 0.6), 0.3, "red"), Item("pear", (x_pear, 0.6), 0.3, "yellow"))
            for stated in ("nothing", "layers", "words"):
                for front in (0, 1) if stated != "nothing" else (None,):
                    sample = compose(
                        world, items, (1, 0) if front in (0, None) else (0, 1), "table", "on a wooden table"
                    )
                    prompt = words[front] if stated == "words" and front is not None else None
                    scene = tell(sample, (kind,), order=stated == "layers", prompt=prompt)
                    key = f"test2/{kind}/apple-{side}/{stated}"
                    yield from _pair(
                        sample_key=key,
                        section="test2",
                        scene=scene,
                        sample=sample,
                        front=front,
                        factors={"told": kind, "apple": side, "order": stated},
                        seeds=seeds,
                    )


def _test3(world: World, seeds: int) -> Iterator[Cell]:
    # The flower stands lower, so perspective puts it in front of the vase.
    items = (
        Item("flower", (0.56, 0.66), 0.28, "yellow"),
        Item("vase", (0.46, 0.5), 0.46, "blue"),
        Item("table", (0.5, 0.86), 0.5),
    )
    for stated, front in (("nothing", None), ("with perspective", 0), ("against perspective", 1)):
        sample = compose(world, items, (2, 1, 0) if front != 1 else (1, 2, 0), "room")
        scene = tell(sample, ("box",), order=front is not None)
        yield from _pair(
            "test3/box" if front is not None else "test3/none", "test3", scene, sample, front, {"order": stated}, seeds
        )


def _test4(world: World, seeds: int) -> Iterator[Cell]:
    items = (
        Item("polar bear", (0.32, 0.56), 0.36),
        Item("iceberg", (0.6, 0.58), 0.56),
        Item("igloo", (0.82, 0.2), 0.3),
    )
    for kinds, title in ((("scribble",), "stroke"), (("box", "scribble"), "box and stroke"), (("box",), "box")):
        for stroke in ("outside", "inside") if "scribble" in kinds else ("none",):
            for stated, front in (("nothing", None), ("layers", 0), ("layers", 1)):
                sample = compose(world, items, (2, 1, 0) if front != 1 else (1, 2, 0), "sea")
                shared = sample.instances[0].amodal & sample.instances[1].amodal
                area = shared if stroke == "inside" else free_part(sample, 0)
                scene = tell(sample, kinds, order=front is not None, strokes={0: area})
                yield from _pair(
                    f"test4/{title}/{stroke}/{stated}",
                    "test4",
                    scene,
                    sample,
                    front,
                    {"told": title, "stroke": stroke, "order": stated},
                    seeds,
                )


def _test5(world: World, seeds: int) -> Iterator[Cell]:
    sides: Sequence[Facing] = ("left", "right")
    for side in sides:
        sample = compose(world, (Item("donkey", (0.5, 0.55), 0.66, facing=side),), (0,), "meadow")
        base = without_order(tell(sample, ("box",)))
        silent = dataclasses.replace(base.instances[0], caption="a donkey")
        parts = tuple(
            Instance("a donkey", box=Box(*(float(np.clip(v, 0, 1)) for v in box)))
            for box in sample.instances[0].parts.values()
        )
        for given, instances in (("box", (silent,)), ("words", base.instances), ("part boxes", (silent, *parts))):
            prompt = f"a donkey facing {side} in a meadow" if given == "words" else "a donkey in a meadow"
            scene = dataclasses.replace(base, prompt=prompt, instances=instances)
            key = f"test5/{given}/{side}"
            cell = Cell(
                key,
                "seed",
                "test5",
                scene,
                truth_of(sample, base, key),
                0,
                {"told": given, "asked": side},
                targets=(0,),
            )
            yield from _cells(cell, seeds)


def _pair(
    sample_key: str,
    section: str,
    scene: Scene,
    sample: WorldSample,
    front: int | None,
    factors: dict[str, str],
    seeds: int,
) -> Iterator[Cell]:
    key = sample_key if front is None else f"{sample_key}/{front}"
    twins = None if front is None else sample_key
    cell = Cell(
        key, "seed", section, scene, truth_of(sample, scene, key), 0, factors, (0, 1), front, twins, targets=(0, 1)
    )
    yield from _cells(cell, seeds)
