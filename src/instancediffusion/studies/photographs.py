"""A judge of photographs: an open-vocabulary detector and a promptable segmenter of other people's, by `transformers`.

Neither has seen this package's pictures, and neither knows an order: the detector names and boxes objects, the
segmenter outlines what is to be seen in a box, and who is in front is read from whose outline holds the overlap
(`sightings`). How right they are in pictures of a diffusion model has not been measured here.
Nothing under a copyleft licence is used. Licences of the weights, as their repositories state them:

| weights | licence |
|---|---|
| `google/owlv2-base-patch16-ensemble` (the default detector), other OWLv2 and OWL-ViT | Apache-2.0 |
| `IDEA-Research/grounding-dino-base`, `-tiny` | Apache-2.0 |
| `facebook/sam-vit-base` (the default segmenter), `-large`, `-huge` | Apache-2.0 |

Only safetensors files are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from instancediffusion.errors import ModelError, SettingsError
from instancediffusion.evaluation.drawings import Floats
from instancediffusion.scene import Scene

from .sightings import Sighting, sight

DETECTOR, SEGMENTER = "google/owlv2-base-patch16-ensemble", "facebook/sam-vit-base"

THRESHOLDS = {"owlv2": 0.2, "owlvit": 0.1, "grounding-dino": 0.25}
"""Kinds of detectors, with the confidence from which their detections count."""

SEGMENTERS = ("sam",)
"""Kinds of segmenters."""


class PhotographJudge:
    """Says what of a scene a picture shows.

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
        kind = _kind("detector", str(detector), tuple(THRESHOLDS))
        _kind("segmenter", str(segmenter), SEGMENTERS)
        self.threshold = THRESHOLDS[kind] if threshold is None else threshold
        self._detect = _Detector(kind, str(detector), device)
        self._segment = _Segmenter(str(segmenter), device)

    def describe(self) -> dict[str, Any]:
        """Return what the numbers depend on, JSON-like."""
        return {**self._names, "threshold": self.threshold}

    def look(self, image: Image.Image, scene: Scene) -> Sighting:
        """Look for a scene's instances in a picture of any size."""
        return sight(image.convert("RGB"), scene, self._detect, self._segment, self.threshold)


class _Detector:
    """A `sightings.Detector`."""

    def __init__(self, kind: str, name: str, device: str) -> None:
        from transformers import AutoImageProcessor, AutoModelForZeroShotObjectDetection, AutoTokenizer

        self._kind, self._device = kind, device
        self._pixels = _opened("detector", name, AutoImageProcessor.from_pretrained)
        self._words = _opened("detector", name, AutoTokenizer.from_pretrained)
        self._model = _network("detector", name, AutoModelForZeroShotObjectDetection, device)

    @torch.inference_mode()
    def __call__(self, image: Image.Image, phrases: Sequence[str]) -> tuple[Floats, Floats]:
        pixels = self._pixels(images=image, return_tensors="pt")
        if self._kind == "grounding-dino":
            words, spans = self._sentence(phrases)
        else:
            length = self._model.config.text_config.max_position_embeddings
            words = self._words(
                list(phrases), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
            )
            spans = [[number] for number in range(len(phrases))]
        answer = self._model(**{k: v.to(self._device) for k, v in {**pixels, **words}.items()})
        probability = answer.logits[0].float().cpu().double().sigmoid()
        scores = torch.stack([probability[:, span].mean(1) for span in spans], 1)
        return self._corners(answer.pred_boxes[0].float().cpu().double(), image), np.nan_to_num(scores.numpy())

    def _sentence(self, phrases: Sequence[str]) -> tuple[dict[str, Tensor], list[list[int]]]:
        """Write phrases as Grounding DINO reads them, "red apple. pear."; returns the tokens of each of them, too.

        How well a box fits a phrase is the mean over its tokens (GLIP, Li et al. 2022), so that colours count.
        """
        plain = [" ".join(phrase.lower().replace(".", " ").split()) for phrase in phrases]
        text = " ".join(f"{phrase}." for phrase in plain)
        words = self._words(
            text,
            truncation=True,
            max_length=self._model.config.max_text_len,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        places, spans, start = words.pop("offset_mapping")[0].tolist(), [], 0
        for phrase in plain:
            end = start + len(phrase)
            spans.append([n for n, (low, high) in enumerate(places) if start <= low < high <= end])
            start = end + 2
        return dict(words), spans

    def _corners(self, boxes: Tensor, image: Image.Image) -> Floats:
        """Turn boxes (Q, 4), middle and size in shares of the network's input, into corners in shares of the image."""
        middle, half = boxes[:, :2], boxes[:, 2:] / 2
        corners: Floats = torch.cat([middle - half, middle + half], 1).numpy()
        if self._kind == "owlv2":  # pictures are made square by a margin on the right or below
            corners = corners * max(image.size) / np.array([image.width, image.height] * 2, np.float64)
        return corners


class _Segmenter:
    """A `sightings.Segmenter`."""

    def __init__(self, name: str, device: str) -> None:
        from transformers import SamModel, SamProcessor

        self._device = device
        self._processor = _opened("segmenter", name, SamProcessor.from_pretrained)
        self._model = _network("segmenter", name, SamModel, device)

    @torch.inference_mode()
    def __call__(self, image: Image.Image, boxes: Floats) -> npt.NDArray[np.float32]:
        prompts = (boxes * np.array([image.width, image.height] * 2)).tolist()
        inputs = self._processor(image, input_boxes=[prompts], return_tensors="pt")
        sizes = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
        values = {key: value.float().to(self._device) for key, value in inputs.items()}
        answer = self._model(**values, multimask_output=False)
        masks = self._processor.post_process_masks(answer.pred_masks.float().cpu(), *sizes, binarize=False)
        logits: npt.NDArray[np.float32] = masks[0][:, 0].numpy()
        return logits


def _kind(role: str, name: str, allowed: Sequence[str]) -> str:
    """Return the kind of a model, which has to be one of some."""
    from transformers import AutoConfig

    looks_like_folder = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_like_folder and not Path(name).expanduser().is_dir():
        raise ModelError(f"{role}: there is no folder {name!r}")
    kind = str(_opened(role, name, AutoConfig.from_pretrained).model_type)
    if kind not in allowed:
        raise ModelError(f"{role}: {name} is a model of the kind {kind!r}; take one of {', '.join(allowed)}")
    return kind


def _network(role: str, name: str, family: Any, device: str) -> Any:
    model = _opened(role, name, lambda path: family.from_pretrained(path, use_safetensors=True))
    return model.to(device).eval()


def _opened(role: str, name: str, open_: Callable[[str], Any]) -> Any:
    folder = Path(name).expanduser()
    try:
        return open_(str(folder) if folder.is_dir() else name)
    except (OSError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        fix = "it must hold a whole transformers model" if folder.is_dir() else "check the name, or give a local folder"
        raise ModelError(f"{role}: {name} cannot be opened ({reason}); {fix}") from error
