"""Sprites ready to be composited: recoloured, mirrored and resized, with the results cached where possible."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from instancediffusion.errors import SettingsError

from .colours import recolour
from .kinds import Drawing, Facing, ObjectKind


@dataclass(frozen=True)
class Stamp:
    """A sprite at its final size.

    Attributes:
        paint: (h, w, 3) float32, 0..255, premultiplied colours.
        clear: (h, w, 1) float32, 0..1: one minus alpha, the weight of what is behind.
        mask: (h, w) bool: where alpha is at least a half.
    """

    paint: NDArray[np.float32]
    clear: NDArray[np.float32]
    mask: NDArray[np.bool_]


class SpriteBook:
    """All sprites of a world, in every colour, as a pyramid of halved sizes that is built on first use.

    Args:
        kinds: the object classes.
        art: icon -> (H, W, 4) uint8 with straight alpha, tightly cropped.
    """

    def __init__(self, kinds: Iterable[ObjectKind], art: Mapping[str, NDArray[np.uint8]]) -> None:
        self.kinds = {kind.name: kind for kind in kinds}
        self._first = {name: kind.drawings[0] for name, kind in self.kinds.items()}
        self._art: dict[str, NDArray[np.uint8]] = {}
        for icon in (drawing.icon for kind in self.kinds.values() for drawing in kind.drawings):
            pixels = art[icon]
            if pixels.ndim != 3 or pixels.shape[2] != 4 or pixels.dtype != np.uint8 or not (pixels[..., 3] > 127).any():
                raise SettingsError(f"sprite {icon!r}: expected a visible (H, W, 4) uint8 array, got {pixels.shape}")
            self._art[icon] = pixels
        self._pyramids: dict[tuple[str, str | None], list[Image.Image]] = {}

    def stamp(
        self,
        name: str,
        colour: str | None,
        facing: Facing | None,
        longer_px: float,
        drawing: Drawing | None = None,
    ) -> Stamp:
        """Return a sprite whose longer side is `longer_px` (at least 4), rounded to whole pixels.

        Without `drawing` it is the first sprite of the class.
        """
        drawing = drawing or self._first[name]
        pyramid = self._pyramid(name, drawing, colour)
        largest = pyramid[0]
        scale = max(longer_px, 4.0) / max(largest.size)
        size = (max(2, round(largest.width * scale)), max(2, round(largest.height * scale)))
        source = next(
            (level for level in reversed(pyramid) if level.width >= size[0] and level.height >= size[1]), largest
        )
        pixels = np.asarray(source.resize(size, Image.Resampling.BILINEAR))
        if _mirrored(name, drawing, facing):
            pixels = pixels[:, ::-1]
        alpha = pixels[..., 3]
        return Stamp(
            pixels[..., :3].astype(np.float32), 1.0 - alpha[..., None].astype(np.float32) / 255.0, alpha >= 128
        )

    def picture(
        self,
        name: str,
        colour: str | None = None,
        facing: Facing | None = None,
        *,
        least: tuple[int, int] | None = None,
        drawing: Drawing | None = None,
    ) -> Image.Image:
        """Return a sprite at its full size, or the smallest kept of at least (width, height); straight alpha (RGBA).

        Without `drawing` it is the first sprite of the class.
        """
        drawing = drawing or self._first[name]
        levels = self._pyramid(name, drawing, colour)
        fitting = [] if least is None else [one for one in levels if one.width >= least[0] and one.height >= least[1]]
        whole = (fitting or levels[:1])[-1].convert("RGBA")
        return ImageOps.mirror(whole) if _mirrored(name, drawing, facing) else whole

    def _pyramid(self, name: str, drawing: Drawing, colour: str | None) -> list[Image.Image]:
        """Return the sprite in premultiplied RGBa, each level half the size of the one before."""
        key = (drawing.icon, colour)
        if key not in self._pyramids:
            pixels = self._art[drawing.icon]
            if colour is not None and (colour != drawing.colour or drawing.repaint):
                if drawing.tint is None or colour not in drawing.colours:
                    raise SettingsError(
                        f"{name} cannot be {colour}; it can be {', '.join(drawing.colours) or 'no other colour'}"
                    )
                pixels = recolour(pixels, drawing.tint, colour)
            level = Image.fromarray(pixels).convert("RGBa")
            levels = [level]
            while min(level.size) >= 16:
                level = level.reduce(2)
                levels.append(level)
            self._pyramids[key] = levels
        return self._pyramids[key]


def _mirrored(name: str, drawing: Drawing, facing: Facing | None) -> bool:
    """Tell whether an orientation is the opposite of the sprite's own."""
    if facing is not None and drawing.facing is None:
        raise SettingsError(f"{name} has no orientation; leave its facing out")
    return facing is not None and facing != drawing.facing
