"""What of a made picture becomes a label: what a detector confirms, with the masks it sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from instancediffusion.datasets import Example
from instancediffusion.evaluation.assignment import assign
from instancediffusion.evaluation.seen import resized
from instancediffusion.geometry import box_iou, mask_box
from instancediffusion.scene import Box, Mask

from .detection import Detection
from .sampling import DrawnScene
from .spec import DatasetSpec

Bools = npt.NDArray[np.bool_]

LEAST_IOU, SAME_CLASS = 0.1, 0.5
"""IoU below which a detection does not stand for an instance; what an equal class adds to the IoU in pairing them."""


@dataclass(frozen=True)
class Verdict:
    """What of a picture is kept.

    Attributes:
        kept: instances that are.
        detections: for each of these the detection that confirms it, as its index in the list; None without a detector.
        dropped: instance -> why it is not.
        rejected: why the whole picture is not kept; empty if it is.
    """

    kept: tuple[int, ...]
    detections: tuple[int | None, ...]
    dropped: dict[int, str]
    rejected: str = ""


def judge_picture(drawn: DrawnScene, detections: Sequence[Detection] | None, spec: DatasetSpec) -> Verdict:
    """Decide which instances of a picture are as they were given.

    Detections are paired with instances so that the sum of their IoUs, plus `SAME_CLASS` where the class is right, is
    largest. An instance is kept if the box and the class of its detection agree.

    Args:
        drawn: what the picture was to show.
        detections: of the picture; None = not looked at, everything is kept.
        spec: its classes and its filter.
    """
    count = len(drawn.scene.instances)
    if detections is None:
        return Verdict(tuple(range(count)), (None,) * count, {})
    called = {one.name: {label.casefold() for label in one.called} for one in spec.classes}
    known = set().union(*called.values())
    counted = [k for k, one in enumerate(detections) if one.score >= spec.filter.score]
    right = np.array(
        [[detections[k].label.casefold() in called[name] for k in counted] for name in drawn.categories], bool
    ).reshape(count, len(counted))
    iou = np.array([[_agreement(drawn, i, detections[k]) for k in counted] for i in range(count)])
    iou = iou.reshape(count, len(counted))
    gain = np.where(iou >= LEAST_IOU, iou + SAME_CLASS * right, 0.0)
    pairs = {i: j for i, j in (assign(gain) if gain.size else []) if gain[i, j] > 0}
    kept, whose, dropped = [], [], dict[int, str]()
    for index in range(count):
        j = pairs.get(index)
        if j is None:
            dropped[index] = "nothing is seen there"
        elif not right[index, j]:
            dropped[index] = f"seen as {detections[counted[j]].label!r}"
        elif iou[index, j] < spec.filter.box_iou:
            dropped[index] = f"box IoU {iou[index, j]:.2f}, below {spec.filter.box_iou:g}"
        else:
            kept.append(index)
            whose.append(counted[j])
    taken = {counted[j] for j in pairs.values()}
    unasked = sum(k not in taken and detections[k].label.casefold() in known for k in counted)
    rejected = ""
    if not kept:
        rejected = f"none of {count} instances is as given"
    elif len(dropped) > spec.filter.max_dropped * count:
        rejected = f"{len(dropped)} of {count} instances are not as given"
    elif unasked > spec.filter.max_unasked:
        rejected = f"{unasked} objects are detected that were not asked for"
    return Verdict(tuple(kept), tuple(whose), dropped, rejected)


def _agreement(drawn: DrawnScene, index: int, detection: Detection) -> float:
    """IoU of a detection's box with the given one; without hidden parts, with its visible part if that is more.

    The visible part of a box is the box of the pixels that nearer boxes and masks leave free.
    """
    given = drawn.scene.instances[index].extent
    best = float(box_iou(detection.box, given)[0, 0])
    if detection.whole is None and (free := mask_box(_free(drawn, index))) is not None:
        best = max(best, float(box_iou(detection.box, free)[0, 0]))
    return best


def _region(drawn: DrawnScene, index: int) -> Bools:
    instance = drawn.scene.instances[index]
    if instance.mask is not None:
        return instance.mask.array
    width, height = drawn.scene.width, drawn.scene.height
    x0, y0, x1, y1 = (round(v * side) for v, side in zip(instance.extent, (width, height) * 2, strict=True))
    region = np.zeros((height, width), bool)
    region[y0:y1, x0:x1] = True
    return region


def nearer(drawn: DrawnScene, index: int) -> list[int]:
    """Instances that stand before one."""
    own = drawn.scene.instances[index].z_order
    others = enumerate(drawn.scene.instances)
    return [k for k, one in others if own is not None and one.z_order is not None and one.z_order > own]


def _free(drawn: DrawnScene, index: int) -> Bools:
    """The region of an instance without those of nearer ones."""
    free = _region(drawn, index)
    for other in nearer(drawn, index):
        free &= ~_region(drawn, other)
    return free


def labelled(
    drawn: DrawnScene, verdict: Verdict, detections: Sequence[Detection] | None, spec: DatasetSpec, **picture: Any
) -> Example:
    """Make the labelled picture of what is kept.

    Masks are the detector's where it gives them: the visible part, and all of it where hidden parts are predicted or
    nothing nearer overlaps; else the given ones, less what is given to stand before them. What is unknown is left out.

    Args:
        drawn: what the picture was to show.
        verdict: of `judge_picture`.
        detections: what it was made from.
        spec: whose boxes are taken.
        picture: `image`, `file_name` and `image_id` of the example.
    """
    instances, visible = [], []
    for index, whose in zip(verdict.kept, verdict.detections, strict=True):
        given = drawn.scene.instances[index]
        found = None if whose is None or detections is None else detections[whose]
        seen, whole = _masks(drawn, index, found)
        box = Box(*given.extent)
        if found is not None and spec.filter.boxes == "seen":
            box = Box(*(mask_box(whole) if whole is not None else None) or found.box)
        mask = Mask.from_array(whole) if whole is not None and whole.any() else None
        instances.append(replace(given, box=box, mask=mask))
        visible.append(Mask.from_array(seen) if seen is not None and seen.any() else None)
    scene = replace(drawn.scene, instances=tuple(instances))
    names = tuple(drawn.categories[index] for index in verdict.kept)
    return Example(scene, categories=names, visible=tuple(visible) if any(visible) else (), **picture)


def _masks(drawn: DrawnScene, index: int, found: Detection | None) -> tuple[Bools | None, Bools | None]:
    """(visible, whole) masks of an instance, (H, W) bool on the scene's canvas; None where unknown."""
    size = (drawn.scene.height, drawn.scene.width)
    given = drawn.scene.instances[index].mask
    if found is not None and found.visible is not None:
        seen = resized(found.visible.astype(np.uint8), size) > 0
        if found.whole is not None:
            return seen, (resized(found.whole.astype(np.uint8), size) > 0) | seen
        covered = any((_region(drawn, k) & _region(drawn, index)).any() for k in nearer(drawn, index))
        return seen, None if covered else seen
    if given is None:
        return None, None
    before = nearer(drawn, index)
    sure = all(drawn.scene.instances[k].mask is not None for k in before if _meet(drawn, index, k))
    ordered = drawn.scene.instances[index].z_order is not None
    alone = not any(_meet(drawn, index, k) for k in range(len(drawn.scene.instances)) if k != index)
    return (_free(drawn, index) if alone or (ordered and sure) else None), given.array


def _meet(drawn: DrawnScene, first: int, second: int) -> bool:
    return bool((_region(drawn, first) & _region(drawn, second)).any())
