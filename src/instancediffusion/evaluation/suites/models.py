"""The models of a suite: opened when a suite first asks for them, and only those it asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from instancediffusion.errors import ModelError, SettingsError

from ..evaluate import PictureJudge

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Detection:
    """One detection.

    Attributes:
        label: its class, in the detector's words.
        box: (4,) x0 y0 x1 y1, fractions of the picture.
        score: confidence, 0..1.
        mask: (H, W) bool of its visible part, of any resolution; None if the detector gives none.
    """

    label: str
    box: Floats
    score: float
    mask: Bools | None = None


class ObjectDetector(Protocol):
    """Finds all objects of a fixed list of classes."""

    @property
    def labels(self) -> Sequence[str]:
        """The classes it knows."""

    def __call__(self, image: Image.Image, name: str) -> list[Detection]:
        """Return the detections of a picture; `name` is that of its file, without suffix."""

    def describe(self) -> Mapping[str, Any]:
        """Return JSON-like facts."""


class PhraseDetector(Protocol):
    """Finds objects by name."""

    def __call__(self, image: Image.Image, phrases: Sequence[str]) -> tuple[Floats, Floats]:
        """Return candidates: boxes (Q, 4), x0 y0 x1 y1 fractions, and how well each fits each phrase, (Q, P) 0..1."""

    def describe(self) -> Mapping[str, Any]:
        """Return JSON-like facts."""


class BoxSegmenter(Protocol):
    """Outlines what boxes hold."""

    def __call__(self, image: Image.Image, boxes: Floats) -> npt.NDArray[np.float32]:
        """Return log odds (K, H, W) that a pixel belongs to the object in each of the boxes (K, 4), fractions."""

    def describe(self) -> Mapping[str, Any]:
        """Return JSON-like facts."""


class PictureText(Protocol):
    """Compares pictures with texts, as CLIP does."""

    def similarities(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Floats:
        """Return cosines (N, T)."""

    def describe(self) -> Mapping[str, Any]:
        """Return JSON-like facts."""


class FeatureNetwork(Protocol):
    """Computes the features of a picture."""

    def __call__(self, image: Image.Image) -> Floats:
        """Return (D,)."""

    def describe(self) -> Mapping[str, Any]:
        """Return JSON-like facts."""


class DepthNetwork(Protocol):
    """Says how near each pixel is."""

    def __call__(self, image: Image.Image) -> Floats:
        """Return (H, W); larger is nearer."""

    def describe(self) -> Mapping[str, Any]:
        """Return JSON-like facts."""


@dataclass
class Models:
    """The models of a suite.

    Attributes:
        opened: by role; a role is the name of a property below.
        openers: by role, what opens it.
    """

    opened: dict[str, Any] = field(default_factory=dict)
    openers: Mapping[str, Callable[[], Any]] = field(default_factory=dict)

    def _get(self, role: str) -> Any:
        if role not in self.opened:
            if role not in self.openers:
                raise SettingsError(f"this suite needs a model for {role!r}, and none was named")
            self.opened[role] = self.openers[role]()
        return self.opened[role]

    def has(self, role: str) -> bool:
        """Return whether there is a model for a role that a suite can do without."""
        return role in self.opened or role in self.openers

    @property
    def detector(self) -> ObjectDetector:
        """Finds objects of a fixed list of classes."""
        found: ObjectDetector = self._get("detector")
        return found

    @property
    def phrases(self) -> PhraseDetector:
        """Finds objects by name."""
        found: PhraseDetector = self._get("phrases")
        return found

    @property
    def segmenter(self) -> BoxSegmenter:
        """Outlines what boxes hold."""
        found: BoxSegmenter = self._get("segmenter")
        return found

    @property
    def clip(self) -> PictureText:
        """Compares pictures with texts."""
        found: PictureText = self._get("clip")
        return found

    @property
    def features(self) -> FeatureNetwork:
        """Computes the features of pictures."""
        found: FeatureNetwork = self._get("features")
        return found

    @property
    def depth(self) -> DepthNetwork:
        """Says how near pixels are."""
        found: DepthNetwork = self._get("depth")
        return found

    @property
    def judge(self) -> PictureJudge:
        """Detects the objects in pictures of the drawn world."""
        found: PictureJudge = self._get("judge")
        return found

    def describe(self, needs: Sequence[str]) -> dict[str, Any]:
        """Say which models stood for some roles; one that nothing asked for is not opened for that."""
        return {role: dict(self.opened[role].describe()) for role in needs if role in self.opened}


def model_kind(role: str, name: str) -> str:
    """Return the kind (`model_type`) of a transformers model on the hub or in a folder.

    Raises:
        ModelError: it is not there, or its configuration cannot be read.
    """
    from transformers import AutoConfig

    looks_like_folder = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_like_folder and not Path(name).expanduser().is_dir():
        raise ModelError(f"{role}: there is no folder {name!r}")
    return str(opened(role, name, AutoConfig.from_pretrained).model_type)


def network(role: str, name: str, family: Any, device: str) -> Any:
    """Open a network for inference; only safetensors files are read."""
    model = opened(role, name, lambda path: family.from_pretrained(path, use_safetensors=True))
    return model.to(device).eval()


def opened(role: str, name: str, open_: Callable[[str], Any]) -> Any:
    """Open a part of a transformers model.

    Args:
        role: what it is for, for the message.
        name: on the hub, or a folder.
        open_: opens it by its name.

    Raises:
        ModelError: it cannot be opened.
    """
    folder = Path(name).expanduser()
    try:
        return open_(str(folder) if folder.is_dir() else name)
    except (OSError, ValueError, ImportError, KeyError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        fix = "it must hold a whole transformers model" if folder.is_dir() else "check the name, or give a local folder"
        raise ModelError(f"{role}: {name} cannot be opened ({reason}); {fix}") from error
