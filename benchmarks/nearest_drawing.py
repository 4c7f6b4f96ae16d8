"""A second opinion on an evaluation's pictures, without any network: which drawing explains each told box best?

    python benchmarks/nearest_drawing.py scores 256 box mask

Takes the folder of an `instancediffusion evaluate` run, the side of its judge's pictures, and some of its kinds. Into
each told box every drawing of the world is laid, in each of its colours and sides; a pixel of its silhouette that no
nearer object hides counts what `studies.fitting` gives it. The best one's kind is compared with the kind asked for, and
the same is done on the world's own pictures of the same layouts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from instancediffusion.evaluation.layouts import FIRST_SEED, MIN_OBJECTS, layout_of
from instancediffusion.evaluation.truth import TrueInstance
from instancediffusion.studies.fitting import CLIP, SIDE_PX, WORTH
from instancediffusion.studies.ownership import Drawings
from instancediffusion.worlds import World, WorldSpec

LEAST_PX = 12
"""Objects of which fewer pixels are to be seen, at the side that is compared, are left out."""


def candidates(world: World) -> list[TrueInstance]:
    """Every drawing: kind, colour, side."""
    return [
        TrueInstance(kind.name, colour, side)
        for kind in world.kinds
        for colour in kind.colours or (None,)
        for side in kind.facings or (None,)
    ]


def best(image: Image.Image, box: np.ndarray, free: np.ndarray, drawings: Drawings, tried: list[TrueInstance]) -> str:
    """The kind of the drawing that explains most of a box where `free` (S, S) says that nothing hides it."""
    small = np.asarray(image.convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX), np.float64)
    values = []
    for one in tried:
        drawn = drawings.place(one, box, (SIDE_PX, SIDE_PX))
        shown = drawn.inside & free
        distance = np.linalg.norm(small[shown] - drawn.pixels[shown], axis=-1) / (255 * 3**0.5)
        values.append(float((WORTH - np.minimum(distance, CLIP)).sum()))
    return str(tried[int(np.argmax(values))].name)


def main(folder: str, side: str, *groups: str) -> None:
    """Judge the pictures and print shares."""
    facts = json.loads((Path(folder) / "report.json").read_text(encoding="utf-8"))["facts"]
    most = int(str(facts["layouts"]["objects"]).split(" to ")[1])
    world = World.load(spec=WorldSpec(size=int(side), min_objects=MIN_OBJECTS, max_objects=most))
    drawings, tried = Drawings(world.sprites), candidates(world)
    for group in groups:
        hits: dict[str, list[bool]] = {"pictures": [], "composites": []}
        for number, path in enumerate(sorted((Path(folder) / group).glob("*.png"))):
            sample = world.sample(FIRST_SEED + number)
            layout = layout_of(world, sample, group, number, order=True)
            images = {"pictures": Image.open(path), "composites": Image.fromarray(sample.image)}
            for wanted, item in zip(layout.truth.instances, sample.instances, strict=True):
                hidden = item.amodal & ~item.visible
                free = ~(np.asarray(Image.fromarray(hidden).resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX)) > 0)
                visible = np.asarray(Image.fromarray(item.visible).resize((SIDE_PX, SIDE_PX))).sum()
                if visible < LEAST_PX:
                    continue
                for name, image in images.items():
                    found = best(image, np.asarray(item.box), free, drawings, tried)
                    hits[name].append(found == wanted.name)
        shares = ", ".join(f"{name} {np.mean(found):.3f}" for name, found in hits.items())
        print(f"{group}: kind of {len(hits['pictures'])} objects, {shares}")


if __name__ == "__main__":
    main(*sys.argv[1:])
