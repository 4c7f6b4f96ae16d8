"""How a composed layout is given: the same in every depth order but for the order itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt

from instancediffusion.evaluation.truth import Truth, truth_of_sample
from instancediffusion.geometry import scribble_from_mask
from instancediffusion.projects.emoji_world import WorldSample
from instancediffusion.projects.emoji_world.samples import inner_point
from instancediffusion.scene import Box, Instance, Mask, Point, Scene, Scribble

LEAST_PIXELS = 12
"""A part of fewer pixels is too small to draw a stroke in."""


def free_part(sample: WorldSample, index: int) -> npt.NDArray[np.bool_]:
    """Return the pixels of an instance that no other one could cover, in any order; all of it if there are few."""
    own = sample.instances[index].amodal
    free = own.copy()
    for other, item in enumerate(sample.instances):
        if other != index:
            free &= ~item.amodal
    return free if free.sum() >= LEAST_PIXELS else own


def tell(
    sample: WorldSample,
    kinds: Collection[str],
    *,
    order: bool = True,
    prompt: str | None = None,
    strokes: Mapping[int, npt.NDArray[np.bool_]] | None = None,
    centres: bool = False,
) -> Scene:
    """Write a layout as a scene. Boxes and masks are amodal; points and strokes lie where the order shows nothing.

    Args:
        sample: the layout.
        kinds: the kinds of location to state.
        order: state the depth order.
        prompt: in place of the sample's.
        strokes: index -> where its stroke lies instead, (H, W) bool.
        centres: put points into the middles of the boxes.
    """
    instances = []
    for index, item in enumerate(sample.instances):
        free = free_part(sample, index)
        area = (strokes or {}).get(index, free)
        x0, y0, x1, y1 = (float(v) for v in item.box)
        point = ((x0 + x1) / 2, (y0 + y1) / 2) if centres else inner_point(free)
        stroke = scribble_from_mask(area, np.random.Generator(np.random.PCG64([29, sample.seed, index])))
        instances.append(
            Instance(
                item.caption,
                box=Box(x0, y0, x1, y1) if "box" in kinds else None,
                point=Point(*point) if "point" in kinds else None,
                scribble=Scribble(tuple((float(x), float(y)) for x, y in stroke)) if "scribble" in kinds else None,
                mask=Mask.from_array(item.amodal) if "mask" in kinds else None,
                z_order=item.z_order if order else None,
            )
        )
    height, width = sample.image.shape[:2]
    return Scene(prompt or sample.prompt, tuple(instances), width=width, height=height)


def truth_of(sample: WorldSample, scene: Scene, name: str) -> Truth:
    """Return what a scene built from a sample asks for, under a name."""
    truth = truth_of_sample(sample, scene)
    return Truth(truth.instances, truth.composite, name, scene)
