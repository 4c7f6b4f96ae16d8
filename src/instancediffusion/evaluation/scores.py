"""Scores of single instances: what was asked for against what is detected."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from instancediffusion.geometry import box_iou

from .matching import match, share_inside
from .seen import Seen, SeenInstance
from .truth import TrueInstance, Truth

SUCCESS = 0.5
"""IoU, or fraction of a stroke, from which a location counts as kept."""


@dataclass(frozen=True)
class InstanceScore:
    """One object that was asked for. What was not given, or cannot be measured of a missed object, is None.

    Attributes:
        picture: number of its picture.
        name: what it should be; None if not given.
        instances: objects asked for in its picture.
        size: side of the square of its box's area, fraction of the canvas.
        hidden: fraction of it that nearer objects cover.
        told: the kinds of location that were given, joined by "+"; "" for none.
        missed: no detection stands for it.
        merged: it is missed, and a detection that stands for another covers its location.
        seen_as: the class of its detection.
        box_iou: IoU of its box and the given one (box and mask); 0 if missed.
        mask_iou: IoU of its visible part with what should be visible of the given mask; 0 if missed.
        point_inside: the given point lies on it.
        stroke_inside: fraction of the given stroke that lies on it.
        kind_right: it is of the class asked for.
        colour_right: it has the colour.
        facing_right: it has the orientation.
        as_asked: it is there, of the right class, colour and orientation as given, and its location is kept: box or
            mask IoU or fraction of the stroke at least .5, or the point on it.
    """

    picture: int
    name: str | None
    instances: int
    size: float | None
    hidden: float
    told: str
    missed: bool
    merged: bool
    seen_as: str | None
    box_iou: float | None = None
    mask_iou: float | None = None
    point_inside: bool | None = None
    stroke_inside: float | None = None
    kind_right: bool | None = None
    colour_right: bool | None = None
    facing_right: bool | None = None
    as_asked: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-like values."""
        return asdict(self)


def mask_iou(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """Return intersection over union of two bitmaps of one shape; 0 if both are empty."""
    union = int((first | second).sum())
    return float((first & second).sum()) / union if union else 0.0


def score_picture(seen: Seen, truth: Truth, picture: int = 0) -> tuple[list[InstanceScore], int]:
    """Score one picture.

    Returns:
        One score for each object asked for, and the number of objects that were not asked for.
    """
    found = match(seen, truth)
    scores = []
    for wanted, index, merged in zip(truth.instances, found.pairs, found.merged, strict=True):
        locations = _locations(seen, index, wanted)
        traits = _traits(None if index is None else seen.instances[index], wanted)
        kept = [value >= SUCCESS for value in locations.values() if value is not None]
        right = index is not None and all(kept) and all(value is not False for value in traits.values())
        score = InstanceScore(
            picture=picture,
            name=wanted.name,
            instances=len(truth.instances),
            size=wanted.size,
            hidden=wanted.hidden,
            told="+".join(wanted.told),
            missed=index is None,
            merged=merged,
            seen_as=None if index is None else seen.instances[index].name,
            as_asked=right,
        )
        scores.append(replace(score, **locations, **traits))
    return scores, found.extra


def _locations(seen: Seen, index: int | None, wanted: TrueInstance) -> dict[str, Any]:
    """Return the scores of location, for the kinds that were given."""
    result: dict[str, Any] = {}
    if wanted.box is not None and {"box", "mask"} & set(wanted.told):
        result["box_iou"] = 0.0 if index is None else float(box_iou(seen.instances[index].box, wanted.box)[0, 0])
    if "mask" in wanted.told and wanted.visible is not None:
        shape = wanted.visible.shape
        result["mask_iou"] = 0.0 if index is None else mask_iou(seen.mask(index, shape), wanted.visible)
    if "point" in wanted.told and wanted.point is not None:
        result["point_inside"] = index is not None and bool(share_inside(seen.mask(index), np.array([wanted.point])))
    if "scribble" in wanted.told and wanted.scribble is not None:
        result["stroke_inside"] = 0.0 if index is None else share_inside(seen.mask(index), wanted.scribble)
    return result


def _traits(found: SeenInstance | None, wanted: TrueInstance) -> dict[str, Any]:
    """Return whether class, colour and orientation are right, those that were given; nothing of a missed object."""
    if found is None:
        return {}
    pairs = {
        "kind_right": (wanted.name, found.name),
        "colour_right": (wanted.colour, found.colour),
        "facing_right": (wanted.facing, found.facing),
    }
    return {name: mine == theirs for name, (mine, theirs) in pairs.items() if mine is not None}
