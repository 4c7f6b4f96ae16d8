"""The drawings of a world's objects, laid where the objects should be."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from instancediffusion.worlds import SpriteBook
from instancediffusion.worlds.kinds import Facing

from ..truth import TrueInstance

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

RIM_SHARE = 1 / 100
"""Width of the rim of an overlap that is not counted, and of the blur before pixels are compared, in canvases: objects
are off their places by so much."""

LEAST_SHARE = 1 / 2048
"""Smallest overlap that is measured, as a share of the picture's area."""

LEAST_DIFFERENCE = 40.0
"""Distance in RGB (0..255 each) that the two drawings must have in a pixel for it to say whose it is."""

DECIDED = 0.4
"""A pixel belongs to one of the two if it is nearer to that one than to the other by `DECIDED` to 1 - `DECIDED`."""


class Drawn(NamedTuple):
    """An object where it should be: pixels (H, W, 3), blurred, and its silhouette (H, W)."""

    pixels: Floats
    inside: Bools


class Drawings:
    """The drawings of a world's objects.

    Args:
        sprites: the drawings.
    """

    def __init__(self, sprites: SpriteBook) -> None:
        self._sprites = sprites

    def place(self, wanted: TrueInstance, box: Floats, size: tuple[int, int]) -> Drawn | None:
        """Draw an object into a box x0 y0 x1 y1 (fractions) of a canvas of (height, width); None if it has no drawing.

        Its colour is the told one, else the drawing's own.
        """
        if wanted.name not in self._sprites.kinds:
            return None
        kind = self._sprites.kinds[wanted.name]
        side: Facing | None = "right" if wanted.facing == "right" else "left" if wanted.facing == "left" else None
        height, width = size
        x0, y0, x1, y1 = (round(float(v) * n) for v, n in zip(box, (width, height, width, height), strict=True))
        sides = (max(x1 - x0, 2), max(y1 - y0, 2))
        drawing = self._sprites.picture(kind.name, wanted.colour or kind.colour, side or kind.facing, least=sides)
        small = drawing.resize(sides, Image.Resampling.BOX)
        opaque = small.getchannel("A")
        # Grown colours: the blur must not mix what lies outside of the silhouette into its rim.
        mean = _mean(small)
        filled = Image.composite(small.convert("RGB"), Image.new("RGB", small.size, mean), opaque)
        canvas, inside = Image.new("RGB", (width, height), mean), Image.new("L", (width, height))
        canvas.paste(filled, (x0, y0))
        inside.paste(opaque, (x0, y0))
        return Drawn(blurred(canvas), np.asarray(inside) >= 128)

    def aspect(self, wanted: TrueInstance) -> float:
        """Return width by height of an object's drawing; 1 if it has none."""
        if wanted.name not in self._sprites.kinds:
            return 1.0
        width, height = self._sprites.picture(wanted.name).size
        return width / height


def blurred(image: Image.Image) -> Floats:
    """Return a picture's pixels, each the mean of its neighbourhood."""
    radius = RIM_SHARE * max(image.size)
    return np.asarray(image.convert("RGB").filter(ImageFilter.BoxBlur(radius)), np.float64)


def _mean(image: Image.Image) -> tuple[int, int, int]:
    """Mean colour of what is opaque."""
    pixels = np.asarray(image, np.float64).reshape(-1, 4)
    weights = np.maximum(pixels[:, 3], 1e-6)
    red, green, blue = (round(value) for value in (weights @ pixels[:, :3] / weights.sum()).tolist())
    return red, green, blue
