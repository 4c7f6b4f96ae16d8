"""Stages whose answers follow from the pixels: what is red is an apple, what is blue a ball, what is bright is near."""

import numpy as np
from PIL import Image

from instancediffusion.annotation import Detection, Stages
from instancediffusion.scene import Mask

COLOURS = {"apple": (220, 30, 30), "ball": (30, 30, 160)}


def paint(size, **boxes):
    """A grey picture with coloured boxes, later ones in front."""
    array = np.full((size[1], size[0], 3), 128, np.uint8)
    for name, (x0, y0, x1, y1) in boxes.items():
        array[y0:y1, x0:x1] = COLOURS[name]
    return array


def find(picture, name):
    return np.abs(picture.astype(int) - COLOURS[name]).sum(axis=2) < 60


class Eyes:
    """All stages in one; it counts pictures, and fails on those with a green corner."""

    def __init__(self):
        self.seen = 0
        self.pin = {"model": "eyes"}

    def stages(self):
        return Stages(self, self, self, self, self)

    def tags(self, pictures):
        self.seen += len(pictures)
        if any(tuple(picture[0, 0]) == (0, 255, 0) for picture in pictures):
            raise RuntimeError("green\nis not seen")
        return [[name for name in COLOURS if find(picture, name).any()] for picture in pictures]

    def detect(self, pictures, tags):
        return [
            [found for name in asked for found in self._boxes(p, name)] for p, asked in zip(pictures, tags, strict=True)
        ]

    def _boxes(self, picture, name):
        rows, columns = np.nonzero(find(picture, name))
        box = (columns.min() - 0.4, rows.min() - 0.4, columns.max() + 1.4, rows.max() + 1.4)
        return [Detection(name, 0.9, box), Detection(name, 0.6, box), Detection(name, 0.1, (0, 0, 9, 9))]

    def segment(self, pictures, boxes):
        return [[self._mask(p, box) for box in places] for p, places in zip(pictures, boxes, strict=True)]

    def _mask(self, picture, box):
        names = [name for name in COLOURS if find(picture, name).any()]
        for name in names:
            x0, y0, _, _ = next(iter(self._boxes(picture, name))).box
            if abs(max(x0, 0) - box[0]) < 1.5 and abs(max(y0, 0) - box[1]) < 1.5:
                return Mask.from_array(find(picture, name))
        return None

    def captions(self, pictures, *, whole):
        return [
            "a photo" if whole else f"something of {picture.shape[1]} by {picture.shape[0]}" for picture in pictures
        ]

    def nearness(self, pictures):
        return [picture.max(axis=2).astype(np.float32) for picture in pictures]


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path
