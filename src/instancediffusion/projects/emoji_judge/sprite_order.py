"""Who is in front of whom: which of two sprites, laid where two objects are, the pixels that both cover look like.

An evaluator that is not told what was asked for: it is given two detections, their class and box as the judge read
them, and finds by itself which of the world's sprites of that class, in which colour and orientation, the picture shows
there, and where exactly. Of the world's own pictures .97 of layouts come out right in both orders (docs/evaluation.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from PIL import Image

from instancediffusion.evaluation.orders import LEAST_SHARE, Overlap
from instancediffusion.evaluation.seen import Bools, SeenInstance
from instancediffusion.geometry import box_iou
from instancediffusion.projects.emoji_world.kinds import Drawing, Facing, ObjectKind
from instancediffusion.projects.emoji_world.sprites import SpriteBook

Pixels = npt.NDArray[np.float32]
"""(h, w, 3), sRGB, 0..1."""
Corners = npt.NDArray[np.int64]
"""x0 y0 x1 y1, or x y: pixels."""

NEAR = 0.35
"""A pixel shows a sprite if their colours differ by less: a distance in sRGB, 0..1 a channel. What it is worth that a
pixel does is this squared, less the squared distance, but at least the negative of it."""
CLEAR = 0.15
"""Two sprites whose colours differ by less in a pixel cannot be told apart by it."""
SURELY = 0.6
"""A pixel shows one of two if its distance to the other is more than this fraction of both together; else neither."""
STEPS = (0.06, 0.03, 0.015)
"""By how much the sides of a box are moved to fit, one after another: fractions of its longer side."""
LEAST_SIDE = 4
"""Shortest side of a sprite that says anything, in pixels."""


@dataclass(frozen=True, eq=False)
class _Laid:
    """A sprite in a picture, as it was found.

    Attributes:
        worth: how well it explains the picture, see `NEAR`.
        box: (4,) of the whole sprite, which may leave the picture.
        part: (4,) of what is in the picture.
        colours: (h, w, 3) of that part.
        mask: (h, w), the same.
    """

    worth: float
    box: Corners
    part: Corners
    colours: Pixels
    mask: Bools


class SpriteOrder:
    """Reads the order of pairs.

    Args:
        sprites: of the world whose objects are looked for.
    """

    def __init__(self, sprites: SpriteBook) -> None:
        self._sprites = sprites

    def overlaps(self, image: Image.Image, seen: Sequence[SeenInstance]) -> dict[tuple[int, int], Overlap | None]:
        """Say what the overlaps of detections show.

        Args:
            image: RGB.
            seen: the detections, of classes of the world.

        Returns:
            For each i < j whose boxes overlap: of the pixels that both sprites cover and that can tell them apart, the
            fractions that show either, and who leads by their distances; None if there are too few.
        """
        pixels: Pixels = np.asarray(image, np.float32) / np.float32(255)
        pairs = [
            (i, j) for i, j in combinations(range(len(seen)), 2) if box_iou(seen[i].where, seen[j].where)[0, 0] > 0
        ]
        laid = {index: self._laid(pixels, seen[index]) for index in sorted({index for pair in pairs for index in pair})}
        return {(i, j): _compared(pixels, laid[i], laid[j]) for i, j in pairs}

    def _laid(self, pixels: Pixels, one: SeenInstance) -> _Laid | None:
        """Find the sprite and the box that explain best what a picture shows in the box of a detection."""
        height, width = pixels.shape[:2]
        box = np.rint(one.where * [width, height, width, height]).astype(np.int64)
        if (box[2:] - box[:2]).min() < LEAST_SIDE:
            return None
        best, found = None, None
        for look in _looks(self._sprites.kinds[one.name]):
            laid = self._at(pixels, one.name, look, box)
            if laid is not None and (found is None or laid.worth > found.worth):
                best, found = look, laid
        if best is None or found is None:
            return None
        for step in STEPS:
            by = max(1, round(step * float((box[2:] - box[:2]).max())))
            for side in range(4):
                for way in (-by, by):
                    moved = found.box.copy()
                    moved[side] += way
                    laid = self._at(pixels, one.name, best, moved)
                    if laid is not None and laid.worth > found.worth:
                        found = laid
        return found

    def _at(
        self, pixels: Pixels, name: str, look: tuple[Drawing, str | None, Facing | None], box: Corners
    ) -> _Laid | None:
        """Lay a sprite into a box; None if that is too small, or outside the picture."""
        size = box[2:] - box[:2]
        if size.min() < LEAST_SIDE:
            return None
        drawing, colour, facing = look
        width, height = (int(side) for side in size)
        sprite = self._sprites.picture(name, colour, facing, least=(width, height), drawing=drawing)
        resized = sprite.convert("RGBa").resize((width, height), Image.Resampling.BILINEAR).convert("RGBA")
        laid: Pixels = np.asarray(resized, np.float32) / np.float32(255)
        low, high = np.maximum(box[:2], 0), np.minimum(box[2:], pixels.shape[1::-1])
        if (high - low).min() <= 0:
            return None
        top, left = low[::-1] - box[1::-1]
        bottom, right = high[::-1] - box[1::-1]
        laid = laid[top:bottom, left:right]
        colours, mask = laid[..., :3], laid[..., 3] >= 0.5
        off = ((pixels[low[1] : high[1], low[0] : high[0]] - colours) ** 2).sum(-1)[mask]
        worth = float(np.maximum(NEAR**2 - off, -(NEAR**2)).sum())
        return _Laid(worth, box, np.concatenate([low, high]), colours, mask)


def _compared(pixels: Pixels, a: _Laid | None, b: _Laid | None) -> Overlap | None:
    """Compare what a picture shows with either of two sprites, where both are."""
    if a is None or b is None:
        return None
    low, high = np.maximum(a.part[:2], b.part[:2]), np.minimum(a.part[2:], b.part[2:])
    if (high <= low).any():
        return None
    (colours_a, mask_a), (colours_b, mask_b) = (_within(one, low, high) for one in (a, b))
    apart = np.linalg.norm(colours_a - colours_b, axis=-1)
    telling = mask_a & mask_b & (apart > CLEAR)
    if telling.sum() < max(1.0, LEAST_SHARE * pixels.shape[0] * pixels.shape[1]):
        return None
    shown = pixels[low[1] : high[1], low[0] : high[0]][telling]
    off_a, off_b = (np.linalg.norm(shown - one[telling], axis=-1) for one in (colours_a, colours_b))
    nearer_b = off_a / np.maximum(off_a + off_b, 1e-6)
    there = np.minimum(off_a, off_b) < NEAR
    # The square of the distance between both is what a clean picture of either gives, with the sign of its owner.
    lead = float((off_b**2 - off_a**2).sum() / (apart[telling] ** 2).sum())
    of_a, of_b = (nearer_b < 1 - SURELY) & there, (nearer_b > SURELY) & there
    return Overlap(float(of_a.mean()), float(of_b.mean()), int(telling.sum()), float(np.clip(lead, -1, 1)))


def _looks(kind: ObjectKind) -> Iterator[tuple[Drawing, str | None, Facing | None]]:
    """Every look of a class."""
    for drawing in kind.drawings:
        for colour in dict.fromkeys((drawing.colour, *drawing.colours)):
            for facing in drawing.facings or (None,):
                yield drawing, colour, facing


def _within(laid: _Laid, low: Corners, high: Corners) -> tuple[Pixels, Bools]:
    """Colours and mask of a sprite in a rectangle of the part of it that is in the picture."""
    (left, top), (right, bottom) = low - laid.part[:2], high - laid.part[:2]
    return laid.colours[top:bottom, left:right], laid.mask[top:bottom, left:right]
