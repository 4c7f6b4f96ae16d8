"""Detectors: which objects a picture shows, so that what is not as given can be left out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from instancediffusion.checkpoints import weights_sha256
from instancediffusion.evaluation import PictureJudge, load_judge
from instancediffusion.evaluation.seen import Picture, as_rgb
from instancediffusion.evaluation.suites.models import ObjectDetector, PhraseDetector
from instancediffusion.geometry import box_iou, rle_decode, rle_encode

Bools = npt.NDArray[np.bool_]
LEAST_SCORE = 0.05
"""Score below which nothing is reported; the filter has a bound of its own."""

SAME = 0.7
"""IoU from which two detections of one label are the same object."""


@dataclass(frozen=True, eq=False)
class Detection:
    """One detected object.

    Attributes:
        label: what it is.
        box: x0, y0, x1, y1, fractions of the picture; of the whole object if `whole` is given, else of what is visible.
        score: 0..1.
        visible: (H, W) bool: the pixels that show it; None if the detector gives no masks.
        whole: (H, W) bool: all of it, hidden parts predicted; None if the detector predicts none.
    """

    label: str
    box: tuple[float, float, float, float]
    score: float
    visible: Bools | None = None
    whole: Bools | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-like values; masks as COCO's compressed run-length codes."""
        masks = {"visible": self.visible, "whole": self.whole}
        runs = {k: {"size": list(m.shape), "counts": rle_encode(m)} for k, m in masks.items() if m is not None}
        return {"label": self.label, "box": list(self.box), "score": self.score, **runs}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Detection:
        """Read what `to_dict` wrote."""
        height_width = {k: values[k]["size"] for k in ("visible", "whole") if k in values}
        masks = {k: rle_decode(values[k]["counts"], (size[0], size[1])) for k, size in height_width.items()}
        return cls(values["label"], tuple(values["box"]), values["score"], **masks)


class Detector(Protocol):
    """Detects the objects of pictures."""

    def detect(self, images: Sequence[Picture], labels: Sequence[str]) -> list[list[Detection]]:
        """Look at pictures (PIL, or (H, W, 3) uint8).

        Args:
            images: the pictures; each gives the detections that it would give by itself.
            labels: the classes of the data set; a detector of fixed classes may ignore them.
        """
        ...

    def describe(self) -> Mapping[str, Any]:
        """Return JSON-like facts that decide what it detects: its name, a hash or revision of its weights."""
        ...


class JudgeDetector:
    """The evaluator (judge) as a detector: boxes of whole objects, visible masks, predicted hidden parts.

    Args:
        judge: see `evaluation.PictureJudge`.
    """

    def __init__(self, judge: PictureJudge) -> None:
        self.judge = judge

    def detect(self, images: Sequence[Picture], labels: Sequence[str]) -> list[list[Detection]]:  # noqa: ARG002
        """Look at pictures; the labels are the classes that the judge was trained on."""
        found = []
        for seen in self.judge.look(images):
            detections = []
            for index, one in enumerate(seen.instances):
                visible = seen.mask(index)
                whole = None if seen.wholes is None else seen.wholes[index] | visible
                masks = {"visible": visible if visible.any() else None, "whole": whole}
                detections.append(Detection(one.name, _box(one.box), float(one.confidence), **masks))
            found.append(detections)
        return found

    def describe(self) -> Mapping[str, Any]:
        """Return the judge's facts."""
        return {"detector": "judge", **self.judge.describe()}


class ClassesDetector:
    """A detector of fixed classes, such as `evaluation.suites.detectors.TransformersDetector`, with or without masks.

    Args:
        detector: finds objects.
        facts: more that `describe` returns.
    """

    def __init__(self, detector: ObjectDetector, facts: Mapping[str, Any] | None = None) -> None:
        self.detector, self.facts = detector, {"detector": "classes", **detector.describe(), **(facts or {})}

    def detect(self, images: Sequence[Picture], labels: Sequence[str]) -> list[list[Detection]]:  # noqa: ARG002
        """Look at pictures; all classes of the detector are reported."""
        found = []
        for image in images:
            seen = [Detection(d.label, _box(d.box), d.score, d.mask) for d in self.detector(as_rgb(image), "")]
            found.append(distinct(seen))
        return found

    def describe(self) -> Mapping[str, Any]:
        """Return the facts."""
        return self.facts


class WordsDetector:
    """A detector of classes in words, such as `evaluation.suites.phrase_models.PhraseNetwork`.

    Args:
        detector: says how well candidate boxes fit words; each box stands for the label that it fits best.
        facts: more that `describe` returns.
    """

    def __init__(self, detector: PhraseDetector, facts: Mapping[str, Any] | None = None) -> None:
        self.detector, self.facts = detector, {"detector": "words", **detector.describe(), **(facts or {})}

    def detect(self, images: Sequence[Picture], labels: Sequence[str]) -> list[list[Detection]]:
        """Look for the labels in pictures."""
        found = []
        for image in images:
            boxes, scores = self.detector(as_rgb(image), labels)
            best = scores.argmax(1)
            rows = zip(boxes, scores.max(1), best, strict=True)
            found.append(distinct([Detection(labels[k], _box(box), float(score)) for box, score, k in rows]))
        return found

    def describe(self) -> Mapping[str, Any]:
        """Return the facts."""
        return self.facts


def distinct(detections: Sequence[Detection]) -> list[Detection]:
    """Those of `LEAST_SCORE` or more, the surest first; of two of one label with an IoU above `SAME` the surer one."""
    kept: list[Detection] = []
    for one in sorted(detections, key=lambda one: -one.score):
        x0, y0, x1, y1 = one.box
        if one.score < LEAST_SCORE or x1 <= x0 or y1 <= y0:
            continue
        same = [other.box for other in kept if other.label == one.label]
        if not same or box_iou(one.box, same).max() <= SAME:
            kept.append(one)
    return kept


def load_detector(name: str, device: str = "cpu") -> Detector:
    """Open a detector by its folder or hub id; of weights, only safetensors are read.

    Args:
        name: the folder of an evaluator (judge); or a detector or instance segmenter of `transformers`.
        device: where it runs.

    Raises:
        CheckpointError: it is a damaged evaluator.
        SettingsError: it is a judge, and nothing that was imported opens judges.
        ModelError: it is no detector, or cannot be opened.
    """
    try:
        values = json.loads((Path(name) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        values = {}
    if isinstance(values, dict) and "judge" in values:
        return JudgeDetector(load_judge(name))
    from instancediffusion.evaluation.suites.detectors import TransformersDetector
    from instancediffusion.evaluation.suites.models import model_kind
    from instancediffusion.evaluation.suites.phrase_models import THRESHOLDS, PhraseNetwork

    facts = {"weights": weights_sha256(Path(name))} if Path(name).is_dir() else {}
    if model_kind("detector", name) in THRESHOLDS:
        return WordsDetector(PhraseNetwork(name, device), facts)
    return ClassesDetector(TransformersDetector(name, device), facts)


def _box(box: npt.ArrayLike) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (float(v) for v in np.clip(np.asarray(box, np.float64), 0, 1))
    return x0, y0, x1, y1
