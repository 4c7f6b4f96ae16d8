"""From a judge's detections to the metrics of one picture. The judge is not given what was asked for.

Which is in front is what the judge reads off a pair (`OrderJudge`). One that reads no pairs is taken by the region
where both objects are: where their given silhouettes overlap if masks were given, else where the detected silhouettes
overlap, with predicted hidden parts. Each of its pixels belongs to one of the two, or to neither (see
`evaluation.orders.Overlap`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from instancediffusion.evaluation import PictureJudge
from instancediffusion.evaluation.matching import match, share_inside
from instancediffusion.evaluation.orders import Overlap, Row, in_front, lower_and_larger, owned_overlap
from instancediffusion.evaluation.scores import InstanceScore, mask_iou, score_picture
from instancediffusion.evaluation.seen import Bools, Floats, Picture, Seen, resized
from instancediffusion.evaluation.truth import TrueInstance
from instancediffusion.geometry import box_iou

from .cells import Cell
from .hulls import hull
from .study_metrics import row_of


@runtime_checkable
class OrderJudge(Protocol):
    """An evaluator (judge) that can be asked for a pair's order, such as `Judge`."""

    def read(self, images: Sequence[Picture], boxes: Sequence[Floats]) -> list[Seen]:
        """Return the detections in given boxes (M, 4) of pictures."""

    def with_overlaps(self, image: Picture, seen: Seen) -> Seen:
        """Add what the overlaps of detections in a picture show."""


def given_boxes(cell: Cell) -> Floats | None:
    """The boxes of a condition, (N, 4) x0 y0 x1 y1 fractions; None unless every instance was given by box or mask."""
    wanted = cell.truth.instances
    boxes = [one.box for one in wanted if one.box is not None and {"box", "mask"} & set(one.told)]
    return np.array(boxes) if boxes and len(boxes) == len(wanted) else None


def seen_for_order(judge: PictureJudge, cell: Cell, image: Picture, seen: Seen | None = None) -> Seen:
    """The detections that the order of a condition's pair is read from.

    They are those in the boxes that were given, if there are any: a detector's own boxes of half hidden objects often
    miss the overlap. Pairs are read of these only.

    Args:
        judge: the evaluator; one that is no `OrderJudge` detects in the whole picture.
        cell: what was asked for.
        image: the picture.
        seen: the detections in the whole picture; None detects them if they are needed.
    """
    boxes = given_boxes(cell)
    if isinstance(judge, OrderJudge) and boxes is not None:
        (seen,) = judge.read([image], [boxes])
    elif seen is None:
        (seen,) = judge.look([image])
    return judge.with_overlaps(image, seen) if isinstance(judge, OrderJudge) else seen


def measure_seen(cell: Cell, seen: Seen, settings: str, for_order: Seen | None = None) -> Row:
    """Compute the metrics of a judge's detections in a picture of a condition.

    Args:
        cell: what was asked for.
        seen: the detections.
        settings: the name of those the picture was sampled with.
        for_order: the detections that the order of the pair is read from, see `seen_for_order`; None takes `seen`.

    Returns:
        The metrics of `study_metrics.MEASURES`. Class, colour and location are of all instances that were asked for:
        one that is missed has none of them.
    """
    scores, _ = score_picture(seen, cell.truth)
    pairs = match(seen, cell.truth).pairs
    targets = cell.targets or tuple(range(len(scores)))
    row = row_of(cell, settings)
    for name, field in (("clean", "as_asked"), ("missed", "missed"), ("merged", "merged")):
        row[name] = float(np.mean([getattr(scores[t], field) for t in targets]))
    row |= _whole_picture(cell, seen, [scores[t] for t in targets], [pairs[t] for t in targets], targets)
    row |= _of_target(seen, cell.truth.instances[targets[0]], pairs[targets[0]])
    if for_order is not None:
        return row | _order(cell, for_order, match(for_order, cell.truth).pairs)
    return row | _order(cell, seen, pairs)


def _whole_picture(
    cell: Cell,
    seen: Seen,
    scores: list[InstanceScore],
    pairs: list[int | None],
    targets: tuple[int, ...],
) -> Row:
    """Class, colour and location of all targets."""
    wanted = [cell.truth.instances[t] for t in targets]
    named = [bool(score.kind_right) for score, one in zip(scores, wanted, strict=True) if one.name is not None]
    coloured = [bool(score.colour_right) for score, one in zip(scores, wanted, strict=True) if one.colour is not None]
    boxes: list[float] = []
    masks: list[float] = []
    for index, one in zip(pairs, wanted, strict=True):
        if one.box is not None:
            boxes.append(0.0 if index is None else float(box_iou(seen.instances[index].box, one.box)[0, 0]))
        if one.visible is not None:
            masks.append(0.0 if index is None else mask_iou(seen.mask(index, one.visible.shape), one.visible))
    found: dict[str, Sequence[float]] = {"class": named, "colour": coloured, "box_iou": boxes, "mask_iou": masks}
    return {name: float(np.mean(values)) if values else None for name, values in found.items()}


def _of_target(seen: Seen, wanted: TrueInstance, index: int | None) -> Row:
    """Orientation, stroke and location of one instance; `index` is its detection, None where it was not found."""
    same = [item for item in seen.instances if item.name == wanted.name]
    row: Row = {"doubled": float(len(same) > 1) if wanted.name is not None else None}
    row["stroke"] = row["facing"] = row["x"] = row["y"] = row["side"] = None
    if wanted.scribble is not None:
        row["stroke"] = 0.0 if index is None else share_inside(seen.mask(index), wanted.scribble)
    if index is None:
        return row
    found = seen.instances[index]
    if wanted.facing is not None and found.facing is not None:
        row["facing"] = float(found.facing == wanted.facing)
    x0, y0, x1, y1 = (float(v) for v in found.box)
    return row | {"x": (x0 + x1) / 2, "y": (y0 + y1) / 2, "side": max((x1 - x0) * (y1 - y0), 0.0) ** 0.5}


def _order(cell: Cell, seen: Seen, pairs: tuple[int | None, ...]) -> Row:
    """Which of the pair is in front, how clean the overlap is, and what is detected of the pair's visible parts."""
    if cell.pair is None:
        return {}
    wanted = [cell.truth.instances[index] for index in cell.pair]
    found = [pairs[index] for index in cell.pair]
    row: Row = lower_and_larger(wanted[0], wanted[1]) | _visible(cell, seen, wanted, found)
    if found[0] is None or found[1] is None:
        return row | in_front(cell.front, None)
    overlap = _overlap(seen, wanted, (found[0], found[1]))
    if overlap is None and not any("mask" in one.told or "box" in one.told for one in wanted):
        return row | {"apart": 1.0}  # the scene does not state that they overlap
    overlapping: dict[str, Any] = {} if {"mask", "box"} & set(wanted[0].told) else {"apart": 0.0}
    return row | overlapping | in_front(cell.front, overlap)


def _overlap(seen: Seen, wanted: list[TrueInstance], found: tuple[int, int]) -> Overlap | None:
    """What the overlap of two detections shows: as the judge reads pairs, else whose pixels it has."""
    first, second = found
    if seen.overlaps:
        pair = seen.overlaps.get((min(found), max(found)))
        return pair if pair is None or first < second else pair.exchanged
    regions = [_region(seen, one, index) for one, index in zip(wanted, found, strict=True)]
    return owned_overlap(seen, first, second, regions[0] & regions[1])


def _region(seen: Seen, wanted: TrueInstance, index: int) -> Bools:
    """All of an object, hidden parts too: as given by its mask, or as the judge predicts it.

    Where the judge predicts none, the world's own sprite in the given box stands in, or the convex hull of the
    detected mask: a bite out of the farther one is what shows that it is farther.
    """
    if seen.wholes is not None and "mask" not in wanted.told:
        whole: Bools = seen.wholes[index] | seen.mask(index)
        return whole
    if wanted.amodal is not None and {"box", "mask"} & set(wanted.told):
        return resized(wanted.amodal.astype(np.uint8), (seen.labels.shape[0], seen.labels.shape[1])) > 0
    return hull(seen.mask(index))


def _visible(cell: Cell, seen: Seen, wanted: list[TrueInstance], found: list[int | None]) -> Row:
    """How much of what should be visible of the pair is detected."""
    if cell.front is None:
        return {}
    row: Row = {}
    ious = []
    for which, (one, index) in enumerate(zip(wanted, found, strict=True)):
        if one.visible is None or not one.visible.any():
            continue
        mask = np.zeros_like(one.visible) if index is None else seen.mask(index, one.visible.shape)
        ious.append(mask_iou(mask, one.visible))
        if which == 1 - cell.front:
            row["hidden_complete"] = float(mask[one.visible].mean())
    return row | ({"visible_iou": float(np.mean(ious))} if ious else {})
