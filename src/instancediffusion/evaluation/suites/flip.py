"""`flip`: every overlapping pair of the scenes, asked for in both depth orders: which one is in front?

A pair is two instances whose given extents overlap (`orders.overlapping_pairs`). It makes two requests, the scene with
either of the two in front (`scene.ordered`); prompt, locations and all other layers are the same. The
evaluator is given what is to be where, and nothing of the order: a detector finds the instances by name and location,
a segmenter outlines them, and which one is in front is read from whose pixels the overlap shows. Pictures of the drawn
world may be evaluated by its trained judge instead.

Requests are counted by the scene's instances, from 0. Of instances 0 and 2 of the scene `street`, the picture with 0 in
front is `street_0-over-2.png`, that with 2 in front `street_2-over-0.png`; further samples end in `_0`, `_1`, ....
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from instancediffusion.errors import SettingsError
from instancediffusion.scene import ordered, without_order

from ..estimates import Estimate, estimate
from ..evaluate import classes_of
from ..matching import match
from ..orders import (
    Overlap,
    in_front,
    lower_and_larger,
    overlapping_pairs,
    owned_overlap,
    pair_numbers,
    sight,
    stated_front,
    told_extent,
    visible_masks,
)
from ..report import ScoreTable
from ..scores import mask_iou
from ..seen import Bools, Seen
from ..truth import Truth, truth_of_scene
from .models import Models
from .suite import Case, Measure, Row, Scored, Suite, known, register

SURE = 0.25
"""Confidence from which a detection counts, where the detector has no threshold of its own."""


@dataclass(frozen=True)
class Request(Case):
    """A scene asked for with one of a pair in front.

    Attributes:
        layout: name of the scene; requests of one scene are not independent.
        pair: the two instances, by index.
        front: which of the two is asked to be in front, 0 or 1.
        own: which of them the scene itself states to be in front; None if neither.
    """

    layout: str = ""
    pair: tuple[int, int] = (0, 1)
    front: int = 0
    own: int | None = None


_RATES = frozenset({"pair_right", "flipped", "exchanged_pair_right", "right", "undecided"})


@register
class FlipSuite(Suite):
    """Both orders of every overlapping pair."""

    name = "flip"
    title = "Flip: every overlapping pair in both depth orders"
    needs = ("phrases", "segmenter", "judge")
    whole = True
    measures: ClassVar[Mapping[str, Measure]] = {
        "pair_right": Measure("pair accuracy", "Both pictures of a pair show the instance in front that was asked to."),
        "exchanged_pair_right": Measure(
            "control: pair accuracy, labels exchanged",
            "The same if each picture is taken for that of the other order. As high as pair accuracy: the order that "
            "was asked for made no difference.",
            upwards=False,
        ),
        "flipped": Measure(
            "flip rate", "When the order asked for is exchanged, the one that is detected in front is exchanged, too."
        ),
        "favoured": Measure(
            "prior bias",
            "How much one order of a pair is favoured whatever is asked: fraction of its pictures with the more "
            "frequent one in front, less a half; 0 is none, .5 always the same. A picture that does not decide is half "
            "of each.",
            upwards=False,
        ),
        "prior": Measure(
            "prior bias to the first", "Fraction of pictures with the first of a pair in front, less a half; 0 is none."
        ),
        "prior_lower": Measure("prior bias to the lower", "The same of the one that stands lower."),
        "prior_larger": Measure("prior bias to the larger", "The same of the one with the larger box."),
        "right": Measure(
            "order accuracy",
            "The one asked to be in front owns more of the overlap of the two, by .1 of it. A picture that does not "
            "decide is wrong.",
        ),
        "undecided": Measure("undecided", "One of the two is not found, or neither leads by .1.", upwards=False),
        "blend": Measure(
            "blend index",
            "Fraction of the overlap that does not show the one in front. Of pairs given by boxes, detectors know "
            "the overlap of the boxes alone, part of which shows neither even if all is well.",
            upwards=False,
        ),
        "visible_iou": Measure(
            "visible-mask IoU",
            "Of what should be visible of the pair's masks in the order asked for and what is; 0 if not found.",
        ),
        "exchanged_visible_iou": Measure(
            "control: visible-mask IoU, labels exchanged", "The same against the other order.", upwards=False
        ),
        "missed": Measure("missed", "Fraction of the pair that is not found.", upwards=False),
    }

    def __init__(self) -> None:
        self._facts: dict[str, Any] = {}

    def requests(self, cases: Sequence[Case]) -> Sequence[Case]:
        """Return both orders of every overlapping pair: requests 2 k and 2 k + 1 are those of pair k.

        Raises:
            SettingsError: there is no such pair; it says what was left out.
        """
        found: list[Request] = []
        left_out: dict[str, int] = {}
        scenes = 0
        for case in cases:
            pairs = overlapping_pairs(case.example.scene)
            scenes += bool(pairs.pairs)
            for reason, count in pairs.left_out.items():
                left_out[reason] = left_out.get(reason, 0) + count
            for pair in pairs.pairs:
                seed = len(found) // 2 if self.same_seed else None
                found += [_request(case, pair, front, seed) for front in (0, 1)]
        self._facts = {"scenes": len(cases), "scenes with a pair": scenes, "pairs": len(found) // 2, **left_out}
        if not found:
            reasons = "; ".join(f"{reason}: {count}" for reason, count in left_out.items())
            raise SettingsError(
                "flip: no two instances with boxes or masks overlap in these scenes"
                + (f" ({reasons})" if reasons else "")
            )
        return found

    def score(self, case: Case, image: Image.Image, models: Models) -> Row:
        """Evaluate which of the pair is in front; the evaluator is not given the order."""
        assert isinstance(case, Request), "the cases of this suite are its requests"
        scene, (first, second) = case.example.scene, case.pair
        truth = truth_of_scene(without_order(scene), classes_of(models.judge) if models.has("judge") else ())
        seen, owners = _look(case, truth, image, models)
        found = [owners[index] for index in case.pair]
        row: Row = {"layout": case.layout, "pair": [first, second], "front_asked": case.front, "own": case.own}
        row |= {"missed": float(np.mean([one is None for one in found]))}
        row |= lower_and_larger(truth.instances[first], truth.instances[second])
        row |= in_front(case.front, _overlap(case, seen, owners))
        exchanged = ordered(scene, case.pair[1 - case.front], case.pair[case.front])
        for name, asked in (("visible_iou", scene), ("exchanged_visible_iou", exchanged)):
            row[name] = _visible_iou(visible_masks(asked, case.pair, _size(seen)), seen, found)
        return row

    def aggregate(self, scored: Sequence[Scored]) -> ScoreTable:
        """Average over pairs, or pictures; whole scenes are resampled."""
        groups = sorted({item.group for item in scored})
        by = {group: self._scores([item for item in scored if item.group == group]) for group in groups}
        return ScoreTable(len(scored), self._scores(scored), {"told by": by} if len(groups) > 1 else {})

    def compare(self, scored: Sequence[Scored], real: Sequence[Scored]) -> tuple[ScoreTable, ScoreTable | None]:
        """Put the scores together; a real picture of unknown order says nothing of the order."""
        there = {item.case for item in real}
        plain = []
        for item in real:
            row = item.row
            if item.case ^ 1 not in there and row["own"] is None:
                silent = dict.fromkeys(("right", "visible_iou", "exchanged_visible_iou"))
                item = replace(item, row={**row, **silent})
            plain.append(item)
        return self.aggregate(scored), self.aggregate(plain) if plain else None

    def badness(self, row: Row) -> float:
        """One if the order is wrong, and the blend index."""
        return 1.0 - row["right"] + (1.0 if row["blend"] is None else row["blend"])

    def notes(self) -> Mapping[str, Any]:
        """Return how many pairs there are, and what was not asked for."""
        return self._facts

    def _scores(self, scored: Sequence[Scored]) -> dict[str, Estimate]:
        values: dict[str, list[tuple[float, str]]] = {name: [] for name in self.measures}
        for item in scored:
            row = {**item.row, "undecided": float(item.row["front"] is None)}
            for name in ("right", "undecided", "blend", "visible_iou", "exchanged_visible_iou", "missed"):
                if row[name] is not None:
                    values[name].append((row[name], row["layout"]))
        for both in _both(scored):
            numbers = pair_numbers(both)
            assert numbers is not None, "these are one picture of either order"
            fronts = [(row["front"], row["front_asked"]) for row in both]
            numbers["exchanged_pair_right"] = float(all(front == 1 - asked for front, asked in fronts))
            numbers["favoured"] = abs(numbers["prior"])
            for name, value in numbers.items():
                values[name].append((value, both[0]["layout"]))
        return known(
            {
                name: estimate([v for v, _ in found], [layout for _, layout in found], rate=name in _RATES)
                for name, found in values.items()
                if found
            }
        )


def _request(case: Case, pair: tuple[int, int], front: int, seed: int | None) -> Request:
    example = case.example
    first, second = (example.scene.instances[index] for index in pair)
    own = stated_front(first, second)
    near, far = pair[front], pair[1 - front]
    # The scene's own picture shows the scene's own order; of an unknown one it stands beside the first request.
    shows = front == (own or 0)
    return Request(
        replace(example, scene=ordered(example.scene, near, far), image=example.image if shows else None),
        f"{case.name}_{near}-over-{far}",
        _given_by(example.scene.instances[near].mask is not None, example.scene.instances[far].mask is not None),
        seed,
        case.name if shows else "",
        case.name,
        pair,
        front,
        own,
    )


def _given_by(*masks: bool) -> str:
    return "masks" if all(masks) else "box and mask" if any(masks) else "boxes"


def _look(case: Request, truth: Truth, image: Image.Image, models: Models) -> tuple[Seen, Sequence[int | None]]:
    """Return the detections, and for each of the scene's instances the index of its detection, or None."""
    if models.has("judge"):
        (seen,) = models.judge.look([image])
        return seen, match(seen, truth).pairs
    threshold = float(getattr(models.phrases, "threshold", SURE))
    sighting = sight(image, without_order(case.example.scene), models.phrases, models.segmenter, threshold)
    return sighting.seen, [None if box is None else index for index, box in enumerate(sighting.boxes)]


def _overlap(case: Request, seen: Seen, owners: Sequence[int | None]) -> Overlap | None:
    """Whose the overlap of the pair is; None if undecided. What shows a third instance does not count."""
    hidden = np.zeros(_size(seen), bool)
    for index, owner in enumerate(owners):
        if index not in case.pair and owner is not None:
            hidden |= seen.mask(owner)
    first, second = (owners[index] for index in case.pair)
    if first is None or second is None:
        return None
    return owned_overlap(seen, first, second, _whole(case, seen, owners, 0) & _whole(case, seen, owners, 1) & ~hidden)


def _whole(case: Request, seen: Seen, owners: Sequence[int | None], which: int) -> Bools:
    """All of one of a pair, hidden parts too: as given by its mask, as the judge predicts, or as given by its box."""
    given, owner = case.example.scene.instances[case.pair[which]], owners[case.pair[which]]
    if given.mask is None and seen.wholes is not None and owner is not None:
        predicted: Bools = seen.wholes[owner] | seen.mask(owner)
        return predicted
    extent = told_extent(given, _size(seen))
    assert extent is not None, "pairs have extents"
    return extent


def _size(seen: Seen) -> tuple[int, int]:
    return seen.labels.shape[0], seen.labels.shape[1]


def _visible_iou(wanted: Sequence[Bools | None], seen: Seen, found: Sequence[int | None]) -> float | None:
    ious = [
        0.0 if index is None else mask_iou(seen.mask(index), mask)
        for mask, index in zip(wanted, found, strict=True)
        if mask is not None and mask.any()
    ]
    return float(np.mean(ious)) if ious else None


def _both(scored: Sequence[Scored]) -> Iterator[tuple[Row, Row]]:
    """Yield both orders of each pair, the k-th picture of one with the k-th of the other."""
    sides: dict[int, tuple[list[Row], list[Row]]] = {}
    for item in sorted(scored, key=lambda one: one.path):
        sides.setdefault(item.case // 2, ([], []))[item.case % 2].append(item.row)
    for first, second in sides.values():
        yield from zip(first, second, strict=False)
