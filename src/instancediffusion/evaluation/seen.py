"""The detections of a judge in a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

Picture = Image.Image | npt.NDArray[np.uint8]
"""What judges are given: a PIL picture, or (H, W, 3) uint8."""

LEAD = 0.1
"""By how much more of the overlap an object must own than the other to be in front."""

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def as_rgb(picture: Picture) -> Image.Image:
    """Return a picture as PIL's, in RGB."""
    return (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).convert("RGB")


@dataclass(frozen=True, eq=False)
class SeenInstance:
    """One detection of a judge.

    Attributes:
        name: its class.
        colour: the named colour it would have if its class has one; None if the judge knows no colours.
        facing: the orientation it would have if its class has one; None if the judge knows none.
        box: (4,) x0 y0 x1 y1, fractions of the picture, of the whole object: hidden parts are predicted.
        confidence: 0..1.
        given: (4,) the box that the judge was told to look into, if it was; None: it found the object by itself.
    """

    name: str
    colour: str | None
    facing: str | None
    box: npt.NDArray[np.float64]
    confidence: float
    given: npt.NDArray[np.float64] | None = None

    @property
    def where(self) -> npt.NDArray[np.float64]:
        """(4,) where to look for it: the box that was given, else its own."""
        return self.box if self.given is None else self.given


@dataclass(frozen=True)
class Overlap:
    """The overlap of two objects a and b, as it is detected.

    Attributes:
        first: fraction of its pixels that show a.
        second: fraction that shows b.
        pixels: how many there are.
        lead: -1..1, how surely a is in front of b, if a detector says so by itself; None leaves it to the fractions,
            of which it is the difference.
    """

    first: float
    second: float
    pixels: int
    lead: float | None = None

    @property
    def front(self) -> int | None:
        """0 if a is in front, 1 if b is, None if neither leads by `LEAD`."""
        lead = self.first - self.second if self.lead is None else self.lead
        if abs(lead) < LEAD:
            return None
        return 0 if lead > 0 else 1

    @property
    def exchanged(self) -> Overlap:
        """The same of b and a."""
        return Overlap(self.second, self.first, self.pixels, None if self.lead is None else -self.lead)

    @property
    def neither(self) -> float:
        """Fraction that shows neither."""
        return 1.0 - self.first - self.second

    @property
    def flicker(self) -> float:
        """Fraction that shows the one of the two that shows less: where the owner changes within the overlap."""
        return min(self.first, self.second)

    @property
    def blend(self) -> float:
        """The blend index: fraction that does not show the object in front, `neither + flicker`; 0 is clean."""
        return self.neither + self.flicker


@dataclass(frozen=True, eq=False)
class Seen:
    """All detections of a picture.

    Attributes:
        labels: (H, W) uint8: 0 where there is no object, k + 1 where instance k is visible.
        instances: the objects.
        features: (D,) float32, the judge's last-layer features of the whole picture, or None.
        wholes: (n, H, W) bool, all of each instance, with predicted hidden parts; None if these are not predicted.
        overlaps: of instances i < j whose boxes overlap, what their overlap shows, None if it is too small to say;
            empty if the judge does not read pairs: then labels and wholes say it (`orders.owned_overlap`).
    """

    labels: npt.NDArray[np.uint8]
    instances: tuple[SeenInstance, ...]
    features: npt.NDArray[np.float32] | None = None
    wholes: npt.NDArray[np.bool_] | None = None
    overlaps: Mapping[tuple[int, int], Overlap | None] = field(default_factory=dict)

    def mask(self, index: int, size: tuple[int, int] | None = None) -> npt.NDArray[np.bool_]:
        """Return the visible part of an instance, (H, W) bool, at another size (height, width) if asked for."""
        return resized(self.labels, size) == index + 1


def resized(labels: npt.NDArray[np.uint8], size: tuple[int, int] | None) -> npt.NDArray[np.uint8]:
    """Bring a map of labels to a size (height, width) by taking the nearest pixel."""
    if size is None or labels.shape == tuple(size):
        return labels
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * have / n).astype(int), have - 1)
        for n, have in zip(size, labels.shape, strict=True)
    )
    return labels[rows[:, None], columns]
