"""What an overlay is drawn with, and how it becomes pixels. Lengths are pixels of the finished picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from instancediffusion.geometry import fill_rings

from .fonts import Face, face_for
from .palette import PAPER, Colour

Rect = tuple[float, float, float, float]
Path = Sequence[tuple[float, float]]

LINE_HEIGHT = 1.28


class Painter(Protocol):
    """The few strokes an overlay needs."""

    def picture(self, image: Image.Image, box: Rect) -> None:
        """Put a picture into a box."""

    def rectangle(
        self, box: Rect, *, fill: Colour | None = None, opacity: float = 1.0, stroke: Colour | None = None,
        width: float = 1.0, radius: float = 0.0,
    ) -> None:  # fmt: skip
        """Draw a rectangle; `opacity` is that of the filling."""

    def line(self, path: Path, *, stroke: Colour, width: float) -> None:
        """Draw a line through points, with round ends."""

    def disc(self, centre: tuple[float, float], radius: float, *, fill: Colour, stroke: Colour, width: float) -> None:
        """Draw a disc with a rim."""

    def region(self, rings: Sequence[npt.NDArray[np.float64]], *, fill: Colour, opacity: float, width: float) -> None:
        """Fill what lies inside an odd number of rings (k, 2), and draw the rings."""

    def text(self, at: tuple[float, float], text: str, *, size: float, fill: Colour) -> None:
        """Write one line; `at` is its upper left corner."""


def text_width(text: str, size: float) -> float:
    """Return the width of a line of text in pixels."""
    # Measured as it is drawn, at twice the size: letters are fitted to the grid, so widths do not scale exactly.
    return _length(text, face_for(text, 2 * size)) / 2


@lru_cache(maxsize=4096)
def _length(text: str, face: Face) -> float:
    return float(face.getlength(text))


class PixelPainter:
    """Draws at twice the size, and halves the result: smooth edges.

    Args:
        size: (height, width) of the finished picture.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self._scale = 2 if size[0] * size[1] <= 16_000_000 else 1
        self._image = Image.new("RGB", (size[1] * self._scale, size[0] * self._scale), PAPER)
        self._draw = ImageDraw.Draw(self._image, "RGBA")

    def finish(self) -> Image.Image:
        """Return the picture."""
        return self._image.reduce(self._scale) if self._scale > 1 else self._image

    def picture(self, image: Image.Image, box: Rect) -> None:
        """Put a picture into a box."""
        x0, y0, x1, y1 = (round(value) for value in self._scaled(box))
        self._image.paste(image.convert("RGB").resize((x1 - x0, y1 - y0), Image.Resampling.LANCZOS), (x0, y0))

    def rectangle(
        self, box: Rect, *, fill: Colour | None = None, opacity: float = 1.0, stroke: Colour | None = None,
        width: float = 1.0, radius: float = 0.0,
    ) -> None:  # fmt: skip
        """Draw a rectangle; `opacity` is that of the filling."""
        x0, y0, x1, y1 = self._scaled(box)
        corners = (x0, y0, max(x1 - 1, x0), max(y1 - 1, y0))
        self._draw.rounded_rectangle(
            corners,
            radius=radius * self._scale,
            fill=None if fill is None else (*fill, round(255 * opacity)),
            outline=stroke,
            width=max(1, round(width * self._scale)) if stroke else 0,
        )

    def line(self, path: Path, *, stroke: Colour, width: float) -> None:
        """Draw a line through points, with round ends."""
        points = [(x * self._scale, y * self._scale) for x, y in path]
        self._draw.line(points, fill=stroke, width=max(1, round(width * self._scale)), joint="curve")
        for x, y in (points[0], points[-1]):
            radius = width * self._scale / 2 - 0.5
            if radius >= 1:
                self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=stroke)

    def disc(self, centre: tuple[float, float], radius: float, *, fill: Colour, stroke: Colour, width: float) -> None:
        """Draw a disc with a rim."""
        x, y, r = (value * self._scale for value in (*centre, radius))
        rim = max(1, round(width * self._scale))
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=fill, outline=stroke, width=rim)

    def region(self, rings: Sequence[npt.NDArray[np.float64]], *, fill: Colour, opacity: float, width: float) -> None:
        """Fill what lies inside an odd number of rings (k, 2), and draw the rings."""
        if not rings:
            return
        corners = np.concatenate(rings) * self._scale
        left, top = (max(0, math.floor(value)) for value in corners.min(axis=0))
        right = min(self._image.width, math.ceil(corners[:, 0].max()))
        bottom = min(self._image.height, math.ceil(corners[:, 1].max()))
        if right > left and bottom > top:
            shifted = [ring * self._scale - (left, top) for ring in rings]
            inside = fill_rings(shifted, (bottom - top, right - left))
            level = Image.fromarray(np.where(inside, np.uint8(round(255 * opacity)), np.uint8(0)))
            self._image.paste(fill, (left, top), level)
        for ring in rings:
            closed = np.concatenate([ring, ring[:1]]) * self._scale
            points = [(float(x), float(y)) for x, y in closed]
            self._draw.line(points, fill=fill, width=max(1, round(width * self._scale)), joint="curve")

    def text(self, at: tuple[float, float], text: str, *, size: float, fill: Colour) -> None:
        """Write one line; `at` is its upper left corner."""
        corner = (at[0] * self._scale, at[1] * self._scale)
        self._draw.text(corner, text, font=face_for(text, size * self._scale), fill=fill, anchor="la")

    def _scaled(self, box: Rect) -> Rect:
        x0, y0, x1, y1 = box
        return (x0 * self._scale, y0 * self._scale, x1 * self._scale, y1 * self._scale)
