"""`pim`: points in mask, as published and repaired.

The method's paper (section 4) scores points and scribbles by whether they lie in the mask of a detected instance. Its
script pairs the masks that the annotations hold with detected ones and

- ignores class and confidence, and takes any pair, even one whose masks share no pixel;
- leaves out instances that have no partner, rather than counting them as missed;
- scores the middle of the annotated mask and twenty newly drawn pixels of it, not the point and the stroke that the
  model was given;
- averages over the instances of a picture, then over pictures.

The repaired metric asks what was given: does the given point, and which fraction of the given stroke, lie on a detected
instance of the given class? One detection serves one instance; one without a detection counts 0; all instances have
the same weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from instancediffusion.errors import SettingsError
from instancediffusion.geometry import rle_decode
from instancediffusion.scene import Instance

from ..assignment import assign
from ..matching import share_inside
from ..report import ScoreTable
from ..seen import resized
from .categories import label_of
from .models import Bools, Detection, Models
from .suite import Case, Measure, NotScoredError, Published, Row, Scored, Suite, Values, known, register

SURE = 0.25
"""Confidence from which a detection counts in the repaired metrics."""

STROKE_PIXELS = 20
"""Pixels that the published script samples of a mask."""


@register
class PointsSuite(Suite):
    """Points in mask."""

    name = "pim"
    title = "PiM: points and strokes in the masks of detected instances"
    needs = ("detector",)
    measures: ClassVar[Mapping[str, Measure]] = {
        "point": Measure(
            "point in mask", f"The given point lies on a detection of its class (confidence from {SURE}); 0 if on none."
        ),
        "stroke": Measure("stroke in mask", "Fraction of the given stroke that lies on a detection of its class."),
        "published_point": Measure(
            "PiM, as published",
            "The middle of the annotated mask lies in the mask it is paired with, whatever that is; no misses.",
            published=True,
        ),
        "published_stroke": Measure(
            "scribble PiM, as published",
            f"Fraction of {STROKE_PIXELS} random pixels of the annotated mask in the mask it is paired with; "
            "no misses.",
            published=True,
        ),
    }
    published = (
        Published("InstanceDiffusion", "paper, YOLOv8m", {"published_point": 0.811, "published_stroke": 0.724}),
        Published("GLIGEN, adapted", "paper, YOLOv8m", {"published_stroke": 0.302}),
    )

    def prepare(self, cases: Sequence[Case], models: Models, path: Path | None) -> None:  # noqa: ARG002
        """Check that there is something to score.

        Raises:
            SettingsError: no instance has a point, a scribble or a mask.
        """
        if not any(_scorable(one) for case in cases for one in case.example.scene.instances):
            raise SettingsError(
                "pim: no instance has a point, a scribble or a mask; boxes alone have no points to score"
            )

    def score(self, case: Case, image: Image.Image, models: Models) -> Row:
        """Detect masks, and ask where points and strokes lie."""
        found = models.detector(image, case.name)
        if found and all(one.mask is None for one in found):
            raise NotScoredError("the detector gives no masks; choose one that does, such as Mask2Former")
        return {**_published(case, found), **_repaired(case, found, models.detector.labels)}

    def aggregate(self, scored: Sequence[Scored]) -> ScoreTable:
        """Repaired: over instances. As published: over pictures, of each picture's mean."""
        values = {name: Values() for name in self.measures}
        for number, item in enumerate(scored):
            for name, collected in values.items():
                for value in item.row[name]:
                    collected.add(value, number, item.case)
        scores = {
            name: one.macro() if self.measures[name].published else one.micro(rate=name == "point")
            for name, one in values.items()
        }
        return ScoreTable(len(scored), known(scores))

    def badness(self, row: Row) -> float:
        """Fraction of points and strokes outside."""
        values = [*row["point"], *row["stroke"]]
        return 1.0 - float(np.mean(values)) if values else 0.0


def _scorable(one: Instance) -> bool:
    return one.point is not None or one.scribble is not None or one.mask is not None


def _repaired(case: Case, found: Sequence[Detection], labels: Sequence[str]) -> dict[str, list[float]]:
    scene, row = case.example.scene, {"point": list[float](), "stroke": list[float]()}
    wanted = [label_of(case.example.category(index), labels) for index in range(len(scene.instances))]
    for name in row:
        chosen = [
            (one, wanted[index])
            for index, one in enumerate(scene.instances)
            if wanted[index] is not None and (one.point if name == "point" else one.scribble) is not None
        ]
        sure = [one for one in found if one.score >= SURE and one.mask is not None]
        gain = [[_inside(one, d, name) if d.label == label else 0.0 for d in sure] for one, label in chosen]
        values = [0.0] * len(chosen)
        for index, number in assign(gain) if sure and chosen else []:
            values[index] = gain[index][number]
        row[name] = values
    return row


def _inside(one: Instance, found: Detection, name: str) -> float:
    points = (
        [(one.point.x, one.point.y)] if name == "point" and one.point else one.scribble.points if one.scribble else []
    )
    return share_inside(found.mask, np.array(points)) if found.mask is not None and len(points) else 0.0


def _published(case: Case, found: Sequence[Detection]) -> dict[str, list[float]]:
    """Pair as the script does: mask by mask in the order of the annotations, each with the free one of largest IoU."""
    scene = case.example.scene
    size = (scene.height, scene.width)
    masks: list[Bools] = [resized(one.mask.astype(np.uint8), size) > 0 for one in found if one.mask is not None]
    free = set(range(len(masks)))
    row: dict[str, list[float]] = {"published_point": [], "published_stroke": []}
    # The script samples without a seed; here the pixels depend on the name of the case.
    rng = np.random.Generator(np.random.PCG64([11, len(scene.instances), *case.name.encode()[-16:]]))
    for one in scene.instances:
        if one.mask is None or not free:
            continue
        wanted = rle_decode(one.mask.counts, size)
        best = max(sorted(free), key=lambda k: _iou(wanted, masks[k]))
        free.discard(best)
        rows, columns = np.nonzero(wanted)
        middle = (int(rows.min() + rows.max()) // 2, int(columns.min() + columns.max()) // 2)
        row["published_point"].append(float(masks[best][middle]))
        drawn = rng.integers(len(rows), size=STROKE_PIXELS)
        row["published_stroke"].append(float(masks[best][rows[drawn], columns[drawn]].mean()))
    return row


def _iou(first: Bools, second: Bools) -> float:
    union: Any = (first | second).sum()
    return float((first & second).sum() / union) if union else 0.0
