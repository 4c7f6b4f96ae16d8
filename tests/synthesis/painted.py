"""A world whose truth is known: every class is a colour, a "pipeline" paints it, with faults where they are asked for,
and a detector finds what is painted."""

import dataclasses

import numpy as np
import torch
from PIL import Image

from instancediffusion.geometry import mask_box
from instancediffusion.pipeline import GenerationOutput, GenerationSettings
from instancediffusion.synthesis import ClassSpec, DatasetSpec, Detection, FilterSpec

COLOURS = {"dog": (255, 0, 0), "cat": (0, 255, 0), "owl": (0, 0, 255)}
SIDE = 64
SETTINGS = GenerationSettings(num_inference_steps=1)


def painted_spec(pictures=12, **changes):
    classes = tuple(
        ClassSpec(name, captions=(f"a painted {name}",), count=(0, 1), size=(0.25, 0.4)) for name in COLOURS
    )
    spec = DatasetSpec(pictures, classes, size=(SIDE, SIDE), instances=(2, 3), backgrounds=("on a wall",))
    return dataclasses.replace(spec, **changes)


def paint(scene, fault=""):
    """(SIDE, SIDE, 3): rectangles from back to front; a fault befalls the nearest."""
    image = np.full((scene.height, scene.width, 3), 128, np.uint8)
    order = sorted(scene.instances, key=lambda one: one.z_order)
    for rank, one in enumerate(order):
        name = one.caption.split()[-1]
        x0, y0, x1, y1 = (round(v * SIDE) for v in one.box.xyxy)
        if rank == len(order) - 1:
            if fault == "absent":
                continue
            if fault == "class":
                name = next(other for other in COLOURS if other not in {i.caption.split()[-1] for i in order})
            if fault == "box":
                x1, y1 = x0 + (x1 - x0 + 1) // 2, y0 + (y1 - y0 + 1) // 2
        image[y0:y1, x0:x1] = COLOURS[name]
    return image


class Painter:
    """Stands where a pipeline does."""

    def __init__(self, faults=None, fails=()):
        self.faults, self.fails, self.made = faults or {}, set(fails), []

    def __call__(self, scenes, *, generator, settings):
        seeds = [one.initial_seed() for one in generator]
        if self.fails & set(seeds):
            raise RuntimeError("out of paint")
        self.made += seeds
        images = [Image.fromarray(paint(s, self.faults.get(n, ""))) for s, n in zip(scenes, seeds, strict=True)]
        rows = tuple(scenes)
        return GenerationOutput(images, None, torch.zeros(len(rows), 1), tuple(seeds), rows, settings, {}, 0.0)


class ColourDetector:
    """Boxes and masks of the pixels of each colour."""

    def __init__(self, fails=()):
        self.looked, self.fails = [], set(fails)

    def detect(self, images, labels):
        assert set(labels) == set(COLOURS)
        return [self._look(np.asarray(image)) for image in images]

    def _look(self, pixels):
        self.looked.append(pixels.tobytes())
        if self.looked[-1] in self.fails:
            raise RuntimeError("cannot look")
        masks = {name: (pixels == colour).all(-1) for name, colour in COLOURS.items()}
        return [Detection(name, mask_box(mask), 0.9, mask) for name, mask in masks.items() if mask.any()]

    def describe(self):
        return {"detector": "colours"}


FILTER = FilterSpec(box_iou=0.5, max_dropped=0.5)
