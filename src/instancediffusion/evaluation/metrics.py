"""Metrics that are fed picture by picture and asked at the end: `update`, then `compute`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .estimates import Estimate, estimate
from .scores import SUCCESS, InstanceScore, score_picture
from .seen import Seen
from .truth import Truth


@dataclass(frozen=True)
class Measure:
    """One column of a table: a number of each instance, and how to read it.

    Attributes:
        title: for the report.
        value: its value for an instance, None where it has none.
        rate: whether values are 0 or 1.
        upwards: whether more is better.
    """

    title: str
    value: Callable[[InstanceScore], float | bool | None]
    rate: bool = False
    upwards: bool = True


def _success(score: InstanceScore) -> bool | None:
    return None if score.box_iou is None else score.box_iou >= SUCCESS


MEASURES: dict[str, Measure] = {
    "as_asked": Measure("as asked", lambda s: s.as_asked, rate=True),
    "box_iou": Measure("box IoU", lambda s: s.box_iou),
    "box_success": Measure("box IoU >= .5", _success, rate=True),
    "mask_iou": Measure("mask IoU", lambda s: s.mask_iou),
    "point_inside": Measure("point inside", lambda s: s.point_inside, rate=True),
    "stroke_inside": Measure("stroke inside", lambda s: s.stroke_inside),
    "kind": Measure("class", lambda s: s.kind_right, rate=True),
    "colour": Measure("colour", lambda s: s.colour_right, rate=True),
    "facing": Measure("facing", lambda s: s.facing_right, rate=True),
    "missed": Measure("missed", lambda s: s.missed, rate=True, upwards=False),
    "merged": Measure("merged", lambda s: s.merged, rate=True, upwards=False),
}
"""What is computed for every set of instances, by name."""

EXTRA = "extra"
"""Name of the mean number of detections in a picture that were not asked for."""

Scores = dict[str, Estimate]

SIZES = ((0.25, "small: side below 1/4"), (0.45, "medium"), (9.0, "large: side 0.45 and more"))
COVERS = ((1e-9, "nothing hidden"), (0.2, "up to 1/5 hidden"), (9.0, "more hidden"))


class InstanceMetrics:
    """All scores of a set of pictures."""

    def __init__(self) -> None:
        self.scores: list[InstanceScore] = []
        self.extras: list[int] = []

    @property
    def pictures(self) -> int:
        """Pictures so far."""
        return len(self.extras)

    def update(self, seen: Seen, truth: Truth) -> list[InstanceScore]:
        """Add a picture; returns its scores."""
        scores, extra = score_picture(seen, truth, self.pictures)
        self.scores += scores
        self.extras.append(extra)
        return scores

    def compute(self, scores: Sequence[InstanceScore] | None = None) -> Scores:
        """Return every metric that has a value, with its interval; of some of the scores if they are given."""
        chosen = self.scores if scores is None else scores
        result: Scores = {}
        for name, measure in MEASURES.items():
            pairs = [(value, s.picture) for s in chosen if (value := measure.value(s)) is not None]
            if pairs:
                values, pictures = zip(*pairs, strict=True)
                found = estimate([float(v) for v in values], pictures, rate=measure.rate)
                result |= {name: found} if found else {}
        if scores is None and (found := estimate(self.extras, range(self.pictures))):
            result[EXTRA] = found
        return result

    def breakdown(self) -> dict[str, dict[str, Scores]]:
        """Compute everything by number of objects, by size and by what is hidden; empty classes are left out."""
        ways: dict[str, Callable[[InstanceScore], str | None]] = {
            "instances": lambda s: str(s.instances),
            "size": lambda s: None if s.size is None else _class_of(s.size, SIZES),
            "hidden": lambda s: _class_of(s.hidden, COVERS) if s.told else None,
        }
        order = {name: number for number, (_, name) in enumerate(SIZES + COVERS)}
        result: dict[str, dict[str, Scores]] = {}
        for way, key in ways.items():
            groups: dict[str, list[InstanceScore]] = {}
            for score in self.scores:
                if (name := key(score)) is not None:
                    groups.setdefault(name, []).append(score)
            keys = sorted(groups, key=lambda name: (order.get(name, 0), name))
            result[way] = {name: self.compute(groups[name]) for name in keys}
        return result


def _class_of(value: float, classes: Sequence[tuple[float, str]]) -> str:
    return next(name for limit, name in classes if value < limit)
