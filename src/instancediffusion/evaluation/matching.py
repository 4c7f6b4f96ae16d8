"""Which detection stands for which object that was asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from instancediffusion.geometry import box_iou

from .assignment import assign
from .seen import Seen, SeenInstance
from .truth import TrueInstance, Truth

LEAST_PLACE = 0.2
"""Agreement of locations below which two objects are not the same one, even if of one class."""

SAME_NAME, SAME_COLOUR = 0.5, 0.05
"""What an equal name and colour add to the agreement of locations: they decide between locations that agree alike."""

COVERING = 0.5
"""Fraction of a missed object's location that another's detection must cover for the two to count as merged."""


@dataclass(frozen=True)
class Match:
    """Result of matching one picture.

    Attributes:
        pairs: for each object asked for, the index of its detection, or None if it is missed.
        merged: for each, whether it is missed because a detection that stands for another covers its location.
        extra: number of detections that were not asked for.
    """

    pairs: tuple[int | None, ...]
    merged: tuple[bool, ...]
    extra: int


def match(seen: Seen, truth: Truth) -> Match:
    """Pair the detections with what was asked for, so that the sum of their agreements is largest.

    The agreement is that of the locations, 0..1 (see `place_agreement`), plus something for an equal name and colour;
    pairs of locations that agree less than `LEAST_PLACE` are none. Where no location was given, equal names are paired.
    """
    gain = np.zeros((len(truth.instances), len(seen.instances)))
    for i, wanted in enumerate(truth.instances):
        for j, found in enumerate(seen.instances):
            gain[i, j] = _gain(seen, j, found, wanted)
    pairs: list[int | None] = [None] * len(truth.instances)
    for i, j in assign(gain) if gain.size else []:
        if gain[i, j] > 0:
            pairs[i] = j
    taken = {j for j in pairs if j is not None}
    merged = tuple(
        pairs[i] is None and any(place_covered(seen, j, wanted) >= COVERING for j in taken)
        for i, wanted in enumerate(truth.instances)
    )
    return Match(tuple(pairs), merged, len(seen.instances) - len(taken))


def place_agreement(seen: Seen, index: int, wanted: TrueInstance) -> float:
    """Return how well a detection is where it was asked for, by the most precise kind of location.

    Box and mask: IoU of the boxes. Scribble: fraction of the stroke inside the object. Point: 1 inside the object, 0.5
    inside its box.
    """
    found = seen.instances[index]
    if wanted.place in ("mask", "box") and wanted.box is not None:
        return float(box_iou(found.box, wanted.box)[0, 0])
    if wanted.place == "scribble" and wanted.scribble is not None:
        return share_inside(seen.mask(index), wanted.scribble)
    if wanted.place == "point" and wanted.point is not None:
        if share_inside(seen.mask(index), np.array([wanted.point])):
            return 1.0
        (x, y), (x0, y0, x1, y1) = wanted.point, found.box
        return 0.5 if x0 <= x <= x1 and y0 <= y <= y1 else 0.0
    return 0.0


def place_covered(seen: Seen, index: int, wanted: TrueInstance) -> float:
    """Return the fraction of the location asked for that a detection covers: of the visible part where it is known."""
    if wanted.place is None:
        return 0.0
    if wanted.visible is not None and wanted.visible.any():
        return float(seen.mask(index, wanted.visible.shape)[wanted.visible].mean())
    if wanted.scribble is not None:
        return share_inside(seen.mask(index), wanted.scribble)
    if wanted.point is not None:
        return share_inside(seen.mask(index), np.array([wanted.point]))
    if wanted.box is None:
        return 0.0
    x0, y0, x1, y1 = wanted.box
    height, width = seen.labels.shape
    window = seen.mask(index)[int(y0 * height) : int(np.ceil(y1 * height)), int(x0 * width) : int(np.ceil(x1 * width))]
    return float(window.mean()) if window.size else 0.0


def share_inside(mask: npt.NDArray[np.bool_], points: npt.NDArray[np.float64]) -> float:
    """Return the fraction of points (K, 2), as (x, y) fractions, that lie on set pixels."""
    height, width = mask.shape
    x = np.clip((points[:, 0] * width).astype(int), 0, width - 1)
    y = np.clip((points[:, 1] * height).astype(int), 0, height - 1)
    return float(mask[y, x].mean())


def _gain(seen: Seen, index: int, found: SeenInstance, wanted: TrueInstance) -> float:
    alike = wanted.name is not None and found.name == wanted.name
    if wanted.place is None:
        return 1.0 if alike else 0.0
    agreement = place_agreement(seen, index, wanted)
    if agreement < LEAST_PLACE:
        return 0.0
    return agreement + SAME_NAME * alike + SAME_COLOUR * (wanted.colour is not None and found.colour == wanted.colour)
