"""The tests that started the study, as they were: the files `test*.json` of the examples, for models of the real world.

The scenes of Tests 2 to 4 are asked for once more in each depth order, stated as layers, all else untouched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from instancediffusion.errors import SettingsError
from instancediffusion.evaluation.truth import Truth, truth_of_scene
from instancediffusion.scene import Scene, load_scene
from instancediffusion.scene.files import examples_folder

from .cells import Cell


@dataclass(frozen=True)
class Original:
    """What one of the files asks.

    Attributes:
        name: of the file.
        factors: what tables are broken down by.
        targets: the instances that count.
        pair: the two whose order is the question; None if it is another question.
        front: which of the two the file's words or strokes ask to be nearer, 0 or 1; None if neither.
        layers: of all instances, the two orders: `pair[0]` nearer, and `pair[1]` nearer.
        twins: files that ask for opposite orders without layers have this in common.
        facing: the orientation asked of the first instance; None if none is.
    """

    name: str
    factors: Mapping[str, str]
    targets: tuple[int, ...]
    pair: tuple[int, int] | None = None
    front: int | None = None
    layers: tuple[tuple[int, ...], ...] = ()
    twins: str | None = None
    facing: str | None = None


_STROKES = "original4/strokes"


def _fruit(name: str, location: str, apple: str, words: bool) -> Original:
    factors = {"told": location, "apple": apple, "words": "apple in front" if words else "none"}
    return Original(name, factors, (0, 1), (0, 1), 0 if words else None, ((1, 0), (0, 1)))


def _igloo(name: str, strokes: str, front: int | None, twins: str | None) -> Original:
    # The iceberg and the igloo; the bear is in front of both.
    return Original(name, {"strokes": strokes}, (1, 2), (1, 2), front, ((2, 1, 0), (2, 0, 1)), twins)


ORIGINALS: Sequence[Original] = (
    Original("test0_bbox_corgi_kitchen", {"told": "box"}, (0,)),
    Original("test0_mask_corgi_kitchen", {"told": "mask"}, (0,)),
    Original("test0_point_corgi_kitchen", {"told": "point"}, (0,)),
    Original("test0_scribble_corgi_kitchen", {"told": "scribble"}, (0,)),
    Original("test0_scribble_simple_corgi_kitchen", {"told": "box and scribble"}, (0,)),
    Original("test0_scribble_simple_corgi_variant_kitchen", {"told": "box and other scribble"}, (0,)),
    Original("test1_point_panda_balloons1", {"balloons": "far apart"}, (1, 2, 3)),
    Original("test1_point_panda_balloons2", {"balloons": "close together"}, (1, 2, 3)),
    Original("test1_point_panda_balloons3", {"balloons": "one point for three"}, (1,)),
    _fruit("test2_bbox_apple_pear1", "box", "left", words=False),
    _fruit("test2_bbox_pear_apple1", "box", "right", words=False),
    _fruit("test2_bbox_apple_pear2", "box", "left", words=True),
    _fruit("test2_bbox_pear_apple2", "box", "right", words=True),
    _fruit("test2_point_apple_pear1", "point", "left", words=False),
    _fruit("test2_point_apple_pear2", "point", "left", words=True),
    # The flower and the vase; the table is behind both.
    Original("test3_bbox_vase_flower_table", {}, (1, 0), (1, 0), 0, ((1, 2, 0), (2, 1, 0))),
    _igloo("test4_bbox_polar_bear_iceberg_igloo", "none", None, None),
    _igloo("test4_scribble_polar_bear_iceberg_igloo1", "igloo behind", 0, _STROKES),
    _igloo("test4_scribble_polar_bear_iceberg_igloo2", "iceberg behind", 1, _STROKES),
    Original("test5_direction_donkey_left", {"asked": "left"}, (0,), facing="left"),
    Original("test5_direction_donkey_right", {"asked": "right"}, (0,), facing="right"),
)


def original_cells(seeds: int, folder: Path | None = None) -> Iterator[Cell]:
    """Yield every scene with as many seeds, untouched, and those of Tests 2 to 4 in both stated orders.

    Args:
        seeds: of each scene, from 0.
        folder: where the files are; None takes the package's examples.

    Raises:
        SettingsError: the package was installed without its examples.
        SceneError: one of the files cannot be read.
    """
    folder = folder or examples_folder()
    if folder is None:
        raise SettingsError("scenes: the package's example scenes are missing; reinstall it, they are part of it")
    for original in ORIGINALS:
        scene = load_scene(folder / f"{original.name}.json")
        for seed in range(seeds):
            yield from _cells(original, scene, seed)


def _cells(original: Original, scene: Scene, seed: int) -> Iterator[Cell]:
    section = f"original{original.name[4]}"
    key = f"{section}/{original.name.split('_', 1)[1]}"
    ordered = {} if original.pair is None else {"order": "as in the file"}
    twins = None if original.twins is None else f"{original.twins}/{seed}"
    untouched = Cell(
        f"{key}/{seed:03d}",
        "seed",
        section,
        scene,
        _truth(original, scene),
        seed,
        {**original.factors, **ordered},
        original.pair,
        original.front,
        twins,
        original.targets,
    )
    yield untouched
    for front, layers in enumerate(original.layers):
        instances = tuple(
            dataclasses.replace(one, z_order=layer) for one, layer in zip(scene.instances, layers, strict=True)
        )
        layered = dataclasses.replace(scene, instances=instances)
        yield dataclasses.replace(
            untouched,
            key=f"{key}/layers/{front}/{seed:03d}",
            scene=layered,
            truth=_truth(original, layered),
            factors={**original.factors, "order": "layers"},
            front=front,
            twins=f"{key}/layers/{seed}",
        )


def _truth(original: Original, scene: Scene) -> Truth:
    truth = truth_of_scene(scene, (), original.name)
    first, *others = truth.instances
    return dataclasses.replace(truth, instances=(dataclasses.replace(first, facing=original.facing), *others))
