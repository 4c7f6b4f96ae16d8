"""Detections of a scene's instances in a picture of any model: which boxes stand for them, and whose the pixels are.

A detector looks for the noun phrase of each caption, a segmenter outlines each detected box, and both are functions
that are handed in (`suites.phrase_models` has real ones). Where two outlines claim a pixel, it belongs to the one the
segmenter is surer of; what none claims belongs to none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from instancediffusion.geometry import box_area, box_iou
from instancediffusion.scene import Scene

from ..assignment import assign
from ..matching import LEAST_PLACE
from ..seen import Bools, Floats, Seen
from ..truth import TrueInstance, truth_of_scene
from .phrases import noun_phrase

SAME_PHRASE, OTHER_PHRASE = 0.5, 0.8
"""IoU with a surer detection, of the same phrase or of any, from which a detection shows nothing new."""

SURENESS = 0.1
"""What a detection's confidence, 0..1, adds to the agreement of locations: it decides between equal agreements."""


class Detection(NamedTuple):
    """One object a detector found: phrase it stands for (by index), (4,) x0 y0 x1 y1 fractions, and confidence 0..1."""

    phrase: int
    box: Floats
    confidence: float


class Detector(Protocol):
    """Finds objects by name."""

    def __call__(self, image: Image.Image, phrases: Sequence[str]) -> tuple[Floats, Floats]:
        """Return candidates: boxes (Q, 4), x0 y0 x1 y1 fractions, and how well each fits each phrase, (Q, P) 0..1."""


class Segmenter(Protocol):
    """Outlines what boxes hold."""

    def __call__(self, image: Image.Image, boxes: Floats) -> npt.NDArray[np.float32]:
        """Return log odds (K, H, W) that a pixel belongs to the object in each of the boxes (K, 4), fractions."""


@dataclass(frozen=True, eq=False)
class Sighting:
    """The detections of a scene's N instances.

    Attributes:
        boxes: of each instance (4,), fractions, as detected; None if it is missed.
        logits: (N, H, W) float32, log odds that a pixel belongs to it; minus infinity where it is missed.
        detected: for each, how many objects of its phrase were detected.
        wanted: for each, how many instances have its phrase.
        surest: for each, the box of the surest detection of its phrase, wherever it is; None if there is none.
    """

    boxes: tuple[Floats | None, ...]
    logits: npt.NDArray[np.float32]
    detected: tuple[int, ...]
    wanted: tuple[int, ...]
    surest: tuple[Floats | None, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the picture."""
        height, width = self.logits.shape[1:]
        return (height, width)

    @property
    def claims(self) -> Bools:
        """(N, H, W): where each instance is, whatever else claims the pixel, too."""
        return self.logits > 0

    @property
    def seen(self) -> Seen:
        """Whose each pixel is, as `Seen.labels`: that of the claimant with the largest log odds, 0 if none's."""
        if not len(self.logits):
            return Seen(np.zeros(self.size, np.uint8), ())
        owner = np.where(self.claims.any(0), self.logits.argmax(0) + 1, 0)
        return Seen(owner.astype(np.uint8), ())


def sight(
    image: Image.Image,
    scene: Scene,
    detect: Detector,
    segment: Segmenter,
    threshold: float,
) -> Sighting:
    """Detect a scene's instances in a picture.

    Args:
        image: the picture.
        scene: what is looked for, and where it is asked for; at most 255 instances.
        detect: finds objects by name.
        segment: outlines them.
        threshold: confidence from which a detection counts, 0..1.
    """
    wanted = truth_of_scene(scene, ()).instances
    texts = [noun_phrase(instance.caption) for instance in scene.instances]
    phrases = list(dict.fromkeys(texts))
    found = distinct(*detect(image, phrases), threshold) if phrases else []
    boxes: list[Floats | None] = [None] * len(texts)
    for number, phrase in enumerate(phrases):
        members = [index for index, text in enumerate(texts) if text == phrase]
        own = [one for one in found if one.phrase == number]
        gain = [[_gain(one, wanted[index]) for one in own] for index in members]
        for row, column in assign(gain) if own else []:
            if gain[row][column] > 0:
                boxes[members[row]] = own[column].box
    logits = np.full((len(texts), image.height, image.width), -np.inf, np.float32)
    there = [index for index, box in enumerate(boxes) if box is not None]
    if there:
        logits[there] = segment(image, np.array([boxes[index] for index in there]))
    surest: dict[int, Floats] = {}
    for one in found:
        surest.setdefault(one.phrase, one.box)
    numbers = [phrases.index(text) for text in texts]
    return Sighting(
        tuple(boxes),
        logits,
        tuple(sum(one.phrase == number for one in found) for number in numbers),
        tuple(numbers.count(number) for number in numbers),
        tuple(surest.get(number) for number in numbers),
    )


def distinct(boxes: Floats, scores: Floats, threshold: float) -> list[Detection]:
    """Reduce candidates to objects, the surest first (non-maximum suppression).

    A candidate stands for the phrase it fits best. It is dropped if that is less than the threshold, or if a surer one
    has its location: of the same phrase from an IoU of `SAME_PHRASE` on, of any phrase from `OTHER_PHRASE` on.

    Args:
        boxes: (Q, 4), fractions.
        scores: (Q, P), 0..1.
        threshold: 0..1.
    """
    boxes = np.clip(np.asarray(boxes, np.float64).reshape(-1, 4), 0, 1)
    best = scores.argmax(1) if len(boxes) else np.zeros(0, int)
    confidence = scores[np.arange(len(boxes)), best]
    kept: list[Detection] = []
    for index in np.argsort(-confidence, kind="stable"):
        if confidence[index] < threshold:
            break
        if box_area(boxes[index]) > 0 and not any(_same(boxes[index], int(best[index]), one) for one in kept):
            kept.append(Detection(int(best[index]), boxes[index], float(confidence[index])))
    return kept


def _same(box: Floats, phrase: int, kept: Detection) -> bool:
    return bool(box_iou(box, kept.box)[0, 0] >= (SAME_PHRASE if phrase == kept.phrase else OTHER_PHRASE))


def _gain(one: Detection, wanted: TrueInstance) -> float:
    """Agreement of locations 0..1, plus a little for confidence; 0 if the detection is elsewhere."""
    location = agreement(one.box, wanted)
    return location + SURENESS * one.confidence if location >= LEAST_PLACE else 0.0


def agreement(box: Floats, wanted: TrueInstance) -> float:
    """Say how well a detected box (4,) is where an instance was asked for, 0..1, by the most precise kind of location.

    Box and mask: IoU of the boxes. Scribble: fraction of the stroke inside. Point: whether it is inside.
    """
    if wanted.place in ("mask", "box") and wanted.box is not None:
        return float(box_iou(box, wanted.box)[0, 0])
    points = wanted.scribble if wanted.place == "scribble" else np.array([wanted.point or (-1.0, -1.0)])
    if points is None:
        return 0.0
    return float(((points >= box[:2]) & (points <= box[2:])).all(1).mean())
