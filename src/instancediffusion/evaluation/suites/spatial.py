"""`t2i-spatial`: are two objects as the prompt has them? T2I-CompBench (Huang et al. 2023), and repaired.

A prompt such as "a dog on the left of a car" (2D) or "a mouse behind a key" (3D) is all that is given; its two scores
are a half for being there (the mean confidence of the two objects, halved) and a half for their position. The published
scripts find objects with UniDet, from a list of classes; here a detector is given the two names, so that numbers
compare with each other and not with published ones. What the scripts get wrong, and what the repaired scores do:

- 3D: the depth map (H, W) is read at [x, y] instead of [y, x]: depths are those of transposed locations;
- "near", "next to", "on side of": one of the two distances below 150 of 512 pixels is enough, so that objects at the
  two ends of a row are near; repaired, both are;
- "on top of" is looked for and never scored; repaired, it is "on the top of".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from instancediffusion.datasets import Example
from instancediffusion.datasets.file_access import read_bounded
from instancediffusion.errors import SettingsError
from instancediffusion.geometry import box_iou
from instancediffusion.scene import Scene

from ..report import ScoreTable
from .models import Floats, Models
from .suite import Case, Measure, NotScoredError, Row, Scored, Suite, Values, known, register

SIDE_PX = 512
THRESHOLD = 0.1
"""Confidence from which a detection counts."""

APART, DISTANCE_PX, COVERED = 0.1, 150.0, 0.5
"""IoU up to which objects are not overlapping; pixels of 512 up to which they are near; IoU that counts as covered."""

NEAR = ("on side of", "next to", "near")
SIDES: Mapping[str, tuple[int, int]] = {
    "on the left of": (0, 1),
    "on the right of": (0, -1),
    "on the bottom of": (1, -1),
    "on the top of": (1, 1),
    "on top of": (1, 1),
}
"""Relation -> axis (x, y) and sign of the way from the first object to the second."""

DEPTHS: Mapping[str, int] = {"in front of": 1, "behind": -1, "hidden": -1}
"""Relation -> sign of the first object's nearness less the second's."""

_RELATION = re.compile("|".join((*NEAR, *SIDES, *DEPTHS)), re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:(?:is|are|by|behind|from|of)\s+)*(?:(?:a|an|the)\s+)?", re.IGNORECASE)


@register
class SpatialSuite(Suite):
    """T2I-CompBench's spatial relations."""

    name = "t2i-spatial"
    title = "T2I-CompBench: spatial relations, 2D and 3D"
    needs = ("phrases", "depth")
    defaults: ClassVar[Mapping[str, str]] = {"phrases": "google/owlv2-base-patch16-ensemble"}
    reads = "a text file with a prompt in each line, such as spatial_val.txt or 3d_spatial_val.txt, or scenes"
    measures: ClassVar[Mapping[str, Measure]] = {
        "flat": Measure("2D", "Half for both being there, half for their side or nearness; 0 if below a half in all."),
        "published_flat": Measure("2D, as published", "The same with the script's rules of position.", published=True),
        "deep": Measure("3D", "Half for both being there, half for which is nearer where their boxes overlap."),
        "published_deep": Measure(
            "3D, as published", "The same with the depth read at transposed locations.", published=True
        ),
    }

    def __init__(self) -> None:
        self._prompts_alone = False

    def cases(self, path: Path | None) -> Sequence[Case] | None:
        """Read prompts; other files than `.txt` are left to the readers of scenes.

        Raises:
            SettingsError: there is no file, or it is empty or no text.
        """
        if path is None or path.suffix.lower() != ".txt":
            return None
        self._prompts_alone = True
        try:
            lines = [line.strip() for line in read_bounded(path).decode("utf-8-sig").splitlines()]
        except UnicodeDecodeError:
            raise SettingsError(f"{path}: is no text (UTF-8)") from None
        prompts = list(dict.fromkeys(line for line in lines if line))
        return [
            Case(Example(Scene(one, (), SIDE_PX, SIDE_PX), None, f"{one}.png", one), _words(one)) for one in prompts
        ]

    def picture_of(self, path: Path) -> str | None:
        """Return the prompt: what stands before the last number, as in "a dog on the left of a car_000012".

        Pictures of scenes that were read from other files have the names of these.
        """
        if not self._prompts_alone:
            return None
        found = re.fullmatch(r"(.+?)_\d+", path.stem, re.DOTALL)
        return _words(found[1] if found is not None else path.stem)

    def prepare(self, cases: Sequence[Case], models: Models, path: Path | None) -> None:  # noqa: ARG002
        """Check that there is something to score.

        Raises:
            SettingsError: no prompt states a relation of two objects.
        """
        if not any(relation_of(case.example.scene.prompt) for case in cases):
            relations = ", ".join((*NEAR, *SIDES, *DEPTHS))
            raise SettingsError(f"t2i-spatial: no prompt states a relation of two objects ({relations})")

    def score(self, case: Case, image: Image.Image, models: Models) -> Row:
        """Detect the two objects, and score how they lie."""
        stated = relation_of(case.example.scene.prompt)
        if stated is None:
            raise NotScoredError("the prompt states no relation of two objects")
        first, relation, second = stated
        boxes, scores = models.phrases(image, [first, second])
        boxes = np.clip(np.asarray(boxes, np.float64).reshape(-1, 4), 0, 1)
        detections = [_surest(boxes, scores, index) for index in range(2)]
        there = [sure for _, sure in detections]
        row: Row = {"deep": relation in DEPTHS, "confidence": there, "position": 0.0, "published_position": 0.0}
        (one, _), (other, _) = detections
        if one is not None and other is not None:
            if relation in DEPTHS:
                depth = models.depth(image)
                sides = np.array([image.width, image.height] * 2)
                row["position"] = deep_position(relation, one * sides, other * sides, depth)
                row["published_position"] = deep_position(relation, one * sides, other * sides, depth.T)
            else:
                row["position"] = flat_position(relation, one * SIDE_PX, other * SIDE_PX)
                row["published_position"] = flat_position(relation, one * SIDE_PX, other * SIDE_PX, published=True)
        return row

    def aggregate(self, scored: Sequence[Scored]) -> ScoreTable:
        """Average over pictures."""
        values = {name: Values() for name in self.measures}
        for number, item in enumerate(scored):
            for prefix in ("", "published_"):
                total = _total(item.row, item.row[f"{prefix}position"])
                values[prefix + ("deep" if item.row["deep"] else "flat")].add(total, number, item.case)
        return ScoreTable(len(scored), known({name: one.micro() for name, one in values.items()}))

    def badness(self, row: Row) -> float:
        """One less the repaired score."""
        return 1.0 - _total(row, row["position"])


def relation_of(prompt: str) -> tuple[str, str, str] | None:
    """Return first object, relation and second object of a prompt, or None."""
    found = _RELATION.search(prompt)
    if found is None:
        return None
    first, second = (_object(text) for text in (prompt[: found.start()], prompt[found.end() :]))
    return (first, found[0].lower(), second) if first and second else None


def flat_position(relation: str, first: Floats, second: Floats, *, published: bool = False) -> float:
    """Score how two boxes (4,), in pixels of 512, lie to each other, 0..1."""
    way = (second[:2] + second[2:] - first[:2] - first[2:]) / 2
    x, y = (abs(float(part)) for part in way)
    if relation in NEAR:
        near = min(x, y) if published else max(x, y)
        return 1.0 if near < DISTANCE_PX else DISTANCE_PX / max(x, y)
    if published and relation == "on top of":
        return 0.0
    axis, sign = SIDES[relation]
    if float(way[axis]) * sign <= 0 or abs(float(way[axis])) <= abs(float(way[1 - axis])):
        return 0.0
    overlap = float(box_iou(first, second)[0, 0])
    return 1.0 if overlap < APART else APART / overlap


def deep_position(relation: str, first: Floats, second: Floats, depth: Floats) -> float:
    """Score which of two boxes (4,), in pixels, is nearer in a map of nearness (H, W), 0..1; 0 if they do not overlap.

    The published script reads the map transposed: hand it in so for its number.
    """
    parts = [depth[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] for box in (first, second)]
    if not all(part.size for part in parts):
        return 0.0
    nearer = (float(parts[0].mean()) - float(parts[1].mean())) * DEPTHS[relation] > 0
    return min(float(box_iou(first, second)[0, 0]) / COVERED, 1.0) if nearer else 0.0


def _total(row: Row, position: float) -> float:
    total = sum(row["confidence"]) / 4 + position / 2
    return float(total if row["deep"] or total >= 0.5 else 0.0)


def _surest(boxes: Floats, scores: Floats, index: int) -> tuple[Floats | None, float]:
    own = [k for k in range(len(boxes)) if scores[k].argmax() == index and scores[k, index] >= THRESHOLD]
    if not own:
        return None, 0.0
    best = max(own, key=lambda k: float(scores[k, index]))
    return boxes[best], float(scores[best, index])


def _object(text: str) -> str:
    plain = _ARTICLE.sub("", text.strip(" .,;!?")).strip()
    return re.sub(r"\s+(?:is|are)$", "", plain)


def _words(text: str) -> str:
    """Return a prompt as names of files keep it: words alone, in lower case."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))
