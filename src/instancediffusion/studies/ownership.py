"""Who is in front in one picture, and how cleanly: whose drawing the overlap of two objects looks like.

Every object of the synthetic world has a drawing. Where two objects overlap, each pixel of a picture is compared with
the two pixels that the drawings have there, and belongs to the one it is clearly nearer to. Nothing is learned, so
nothing can prefer an object; but it takes places that are known: told boxes and masks, or boxes that a judge found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from instancediffusion.evaluation.truth import TrueInstance
from instancediffusion.worlds import SpriteBook
from instancediffusion.worlds.kinds import Facing

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

LEAD = 0.1
"""By how much more of the overlap an object must own than the other to be in front."""


@dataclass(frozen=True)
class Overlap:
    """The overlap of two objects a and b, as it is seen.

    Attributes:
        first: share of its pixels that show a.
        second: share that shows b.
        pixels: how many there are.
    """

    first: float
    second: float
    pixels: int

    @property
    def front(self) -> int | None:
        """0 if a is in front, 1 if b is, None if neither leads by `LEAD`."""
        if abs(self.first - self.second) < LEAD:
            return None
        return 0 if self.first > self.second else 1

    @property
    def neither(self) -> float:
        """Share that shows neither."""
        return 1.0 - self.first - self.second

    @property
    def flicker(self) -> float:
        """Share that shows the one of the two that shows less: where the owner changes within the overlap."""
        return min(self.first, self.second)

    @property
    def blend(self) -> float:
        """The blend index: share that does not show the object in front, `neither + flicker`; 0 is clean."""
        return self.neither + self.flicker


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
        drawing = self._sprites.picture(kind.name, wanted.colour or kind.colour, side or kind.facing)
        height, width = size
        x0, y0, x1, y1 = (round(float(v) * n) for v, n in zip(box, (width, height, width, height), strict=True))
        small = drawing.resize((max(x1 - x0, 2), max(y1 - y0, 2)), Image.Resampling.BOX)
        opaque = small.getchannel("A")
        # Grown colours: the blur must not mix what lies outside of the silhouette into its rim.
        filled = Image.composite(small.convert("RGB"), Image.new("RGB", small.size, _mean(small)), opaque)
        canvas, inside = Image.new("RGB", (width, height), _mean(small)), Image.new("L", (width, height))
        canvas.paste(filled, (x0, y0))
        inside.paste(opaque, (x0, y0))
        return Drawn(blurred(canvas), np.asarray(inside) >= 128)


def overlap_of(image: Image.Image, first: Drawn, second: Drawn) -> Overlap | None:
    """Measure the overlap of two objects in a picture (RGB) of the size of their canvases.

    Returns:
        None if they share too few pixels, or look too much alike there, to say anything.
    """
    region = without_rim(first.inside & second.inside)
    region &= np.linalg.norm(first.pixels - second.pixels, axis=-1) >= LEAST_DIFFERENCE
    if region.sum() < LEAST_SHARE * region.size:
        return None
    own = blurred(image)[region]
    to_first = np.linalg.norm(own - first.pixels[region], axis=-1)
    to_second = np.linalg.norm(own - second.pixels[region], axis=-1)
    nearness = to_first / np.maximum(to_first + to_second, 1e-9)
    return Overlap(float((nearness < DECIDED).mean()), float((nearness > 1 - DECIDED).mean()), int(region.sum()))


def blurred(image: Image.Image) -> Floats:
    """Return a picture's pixels, each the mean of its neighbourhood."""
    radius = RIM_SHARE * max(image.size)
    return np.asarray(image.convert("RGB").filter(ImageFilter.BoxBlur(radius)), np.float64)


def without_rim(shared: Bools) -> Bools:
    """Return what counts of an overlap (H, W): all but its rim, or all of it if nothing else would be left."""
    inner = shrunk(shared, max(1, round(RIM_SHARE * max(shared.shape))))
    return inner if inner.sum() >= LEAST_SHARE * shared.size else shared.copy()


def shrunk(mask: Bools, pixels: int) -> Bools:
    """Return the pixels of a mask whose whole neighbourhood, so many pixels up, down, left and right, is in it."""
    result = np.pad(mask, 1)
    for _ in range(pixels):
        inner = result.copy()
        inner[1:] &= result[:-1]
        inner[:-1] &= result[1:]
        inner[:, 1:] &= result[:, :-1]
        inner[:, :-1] &= result[:, 1:]
        result = inner
    return result[1:-1, 1:-1]


def _mean(image: Image.Image) -> tuple[int, int, int]:
    """Mean colour of what is opaque."""
    pixels = np.asarray(image, np.float64)
    weights = np.maximum(pixels[..., 3], 1e-6)
    red, green, blue = (round(float(np.average(pixels[..., k], weights=weights))) for k in range(3))
    return red, green, blue
