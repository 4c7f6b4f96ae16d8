"""An evaluator (judge) of photographs: an open-vocabulary detector and a promptable segmenter, by `transformers`.

Neither was trained on this package's pictures, and neither is given an order: the detector names and boxes objects, the
segmenter outlines what is visible in a box, and which one is in front is read from whose outline holds the overlap
(`evaluation.orders`). Their accuracy on images of a diffusion model has not been measured here.
The networks and their licences are those of `evaluation.suites.phrase_models`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from instancediffusion.errors import SettingsError
from instancediffusion.evaluation.orders import Sighting, sight
from instancediffusion.evaluation.suites.phrase_models import (
    DETECTOR,
    SEGMENTER,
    SEGMENTERS,
    THRESHOLDS,
    BoxNetwork,
    PhraseNetwork,
    kind_among,
)
from instancediffusion.scene import Scene


class PhotographJudge:
    """Detects the instances of a scene in a picture.

    Args:
        detector: name on the hub, or folder, of a model of one of the kinds in `THRESHOLDS`.
        segmenter: the same, of one of `SEGMENTERS`.
        device: where both run.
        threshold: confidence from which a detection counts, 0..1; None takes that of the detector's kind.

    Raises:
        ModelError: a model is not there, is incomplete, or is of another kind.
        SettingsError: the threshold is out of range.
    """

    def __init__(
        self,
        detector: str | Path = DETECTOR,
        segmenter: str | Path = SEGMENTER,
        device: str = "cpu",
        threshold: float | None = None,
    ) -> None:
        if threshold is not None and not 0 <= threshold <= 1:
            raise SettingsError(f"threshold: {threshold} is not a number from 0 to 1")
        self._names = {"detector": str(detector), "segmenter": str(segmenter)}
        kind = kind_among("detector", str(detector), tuple(THRESHOLDS))
        kind_among("segmenter", str(segmenter), SEGMENTERS)  # before the first of them is loaded
        self.threshold = THRESHOLDS[kind] if threshold is None else threshold
        self._detect = PhraseNetwork(str(detector), device)
        self._segment = BoxNetwork(str(segmenter), device)

    def describe(self) -> dict[str, Any]:
        """Return what the numbers depend on, JSON-like."""
        return {**self._names, "threshold": self.threshold}

    def look(self, image: Image.Image, scene: Scene) -> Sighting:
        """Detect a scene's instances in a picture of any size."""
        return sight(image.convert("RGB"), scene, self._detect, self._segment, self.threshold)
