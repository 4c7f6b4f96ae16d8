"""What annotating is made of: four kinds of model behind protocols, and the plain records they pass on.

Pictures are (H, W, 3) uint8 sRGB arrays, upright, of any size; a batch may mix sizes. Boxes are (x0, y0, x1, y1) in
pixels of the picture they belong to, x to the right, y down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from instancediffusion.scene import Mask

Pixels = npt.NDArray[np.uint8]
PixelBox = tuple[float, float, float, float]


@dataclass(frozen=True)
class Detection:
    """One object that was found.

    Attributes:
        tag: which of the tags that were asked for it is, letter for letter.
        score: how sure the detector is, 0..1.
        box: where it is, in pixels; may leave the picture.
    """

    tag: str
    score: float
    box: PixelBox


class Stage(Protocol):
    """What every model says of itself."""

    @property
    def pin(self) -> Mapping[str, Any]:
        """JSON-like values that change whenever results may: the model, its revision or the hashes of its files."""
        ...


class Tagger(Stage, Protocol):
    """Names what pictures show."""

    def tags(self, pictures: Sequence[Pixels]) -> Sequence[Sequence[str]]:
        """The classes of the objects of each picture, in any writing and with repetitions."""
        ...


class Detector(Stage, Protocol):
    """Finds objects by name."""

    def detect(self, pictures: Sequence[Pixels], tags: Sequence[Sequence[str]]) -> Sequence[Sequence[Detection]]:
        """All objects of each picture that its own tags name, overlapping and doubtful ones too."""
        ...


class Segmenter(Stage, Protocol):
    """Cuts out objects."""

    def segment(
        self, pictures: Sequence[Pixels], boxes: Sequence[Sequence[PixelBox]]
    ) -> Sequence[Sequence[Mask | None]]:
        """The visible pixels of the object in each box, as a mask of its picture's size; None if there are none."""
        ...


class Captioner(Stage, Protocol):
    """Describes pictures."""

    def captions(self, pictures: Sequence[Pixels], *, whole: bool) -> Sequence[str]:
        """A description of each; `whole` if it is a photograph, not a crop of one object. May be empty."""
        ...


class DepthEstimator(Stage, Protocol):
    """Estimates which pixels are near and which are far."""

    def nearness(self, pictures: Sequence[Pixels]) -> Sequence[npt.NDArray[np.float32]]:
        """For each picture (H, W) finite numbers, larger = nearer to the viewer, in a scale of its own."""
        ...


@dataclass(frozen=True)
class Stages:
    """The models of one run; what is None is left out.

    Without a tagger the settings name the tags; without a detector only what is labelled already is worked on.
    """

    tagger: Tagger | None = None
    detector: Detector | None = None
    segmenter: Segmenter | None = None
    captioner: Captioner | None = None
    depth: DepthEstimator | None = None

    @property
    def pins(self) -> dict[str, dict[str, Any]]:
        """Name of the stage -> what its model is."""
        return {name: dict(stage.pin) for name, stage in vars(self).items() if stage is not None}
