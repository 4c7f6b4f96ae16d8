"""Detectors that are given what to look for, and segmenters that are given where, by `transformers`.

Licences of the weights, as their repositories state them; nothing under a copyleft licence is used:

| weights | licence |
|---|---|
| `google/owlv2-base-patch16-ensemble` (the default detector), other OWLv2 and OWL-ViT | Apache-2.0 |
| `IDEA-Research/grounding-dino-base`, `-tiny` | Apache-2.0 |
| `facebook/sam-vit-base` (the default segmenter), `-large`, `-huge` | Apache-2.0 |

Only safetensors files are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from instancediffusion.errors import ModelError

from .models import Floats, model_kind, network, opened

DETECTOR, SEGMENTER = "google/owlv2-base-patch16-ensemble", "facebook/sam-vit-base"

THRESHOLDS = {"owlv2": 0.2, "owlvit": 0.1, "grounding-dino": 0.25}
"""Types of detectors, with the confidence from which their detections count."""

SEGMENTERS = ("sam",)
"""Types of segmenters."""


def kind_among(role: str, name: str, allowed: Sequence[str]) -> str:
    """Return the kind of a model, which has to be one of some.

    Raises:
        ModelError: it is another one.
    """
    kind = model_kind(role, name)
    if kind not in allowed:
        raise ModelError(f"{role}: {name} is a model of the kind {kind!r}; take one of {', '.join(allowed)}")
    return kind


class PhraseNetwork:
    """OWL-ViT, OWLv2 or Grounding DINO: a `models.PhraseDetector`.

    Args:
        name: on the hub, or a folder, of a model of one of the kinds in `THRESHOLDS`.
        device: where it runs.
        surest: how well a box fits a phrase is the surest of the phrase's tokens, as Grounding DINO's own code has it;
            else the mean over them. OWL-ViT knows phrases only.

    Raises:
        ModelError: it is not there, is incomplete, or is of another kind.
    """

    def __init__(self, name: str = DETECTOR, device: str = "cpu", surest: bool = False) -> None:
        from transformers import AutoImageProcessor, AutoModelForZeroShotObjectDetection, AutoTokenizer

        self.kind = kind_among("detector", name, tuple(THRESHOLDS))
        self._name, self._device, self._surest = name, device, surest
        self._pixels = opened("detector", name, AutoImageProcessor.from_pretrained)
        self._words = opened("detector", name, AutoTokenizer.from_pretrained)
        self._model = network("detector", name, AutoModelForZeroShotObjectDetection, device)

    @property
    def threshold(self) -> float:
        """Confidence from which detections of its kind count."""
        return THRESHOLDS[self.kind]

    def describe(self) -> Mapping[str, Any]:
        """Return JSON-like facts."""
        return {"name": self._name}

    @torch.inference_mode()
    def __call__(self, image: Image.Image, phrases: Sequence[str]) -> tuple[Floats, Floats]:
        """Return candidates: boxes (Q, 4), fractions, and how well each fits each phrase, (Q, P) 0..1."""
        pixels = self._pixels(images=image, return_tensors="pt")
        if self.kind == "grounding-dino":
            words, spans = self._sentence(phrases)
        else:
            length = self._model.config.text_config.max_position_embeddings
            words = self._words(
                list(phrases), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
            )
            spans = [[number] for number in range(len(phrases))]
        answer = self._model(**{k: v.to(self._device) for k, v in {**pixels, **words}.items()})
        probability = answer.logits[0].float().cpu().double().sigmoid()
        pooled = [probability[:, span] for span in spans]
        scores = torch.stack([one.amax(1) if self._surest and one.numel() else one.mean(1) for one in pooled], 1)
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
        offsets, spans, start = words.pop("offset_mapping")[0].tolist(), [], 0
        for phrase in plain:
            end = start + len(phrase)
            spans.append([n for n, (low, high) in enumerate(offsets) if start <= low < high <= end])
            start = end + 2
        return dict(words), spans

    def _corners(self, boxes: Tensor, image: Image.Image) -> Floats:
        """Turn boxes (Q, 4), middle and size as fractions of the network's input, into corners of the image."""
        middle, half = boxes[:, :2], boxes[:, 2:] / 2
        corners: Floats = torch.cat([middle - half, middle + half], 1).numpy()
        if self.kind == "owlv2":  # pictures are made square by a margin on the right or below
            corners = corners * max(image.size) / np.array([image.width, image.height] * 2, np.float64)
        return corners


class BoxNetwork:
    """SAM: a `models.BoxSegmenter`.

    Args:
        name: on the hub, or a folder, of a model of one of `SEGMENTERS`.
        device: where it runs.

    Raises:
        ModelError: it is not there, is incomplete, or is of another kind.
    """

    def __init__(self, name: str = SEGMENTER, device: str = "cpu") -> None:
        from transformers import SamModel, SamProcessor

        kind_among("segmenter", name, SEGMENTERS)
        self._name, self._device = name, device
        self._processor = opened("segmenter", name, SamProcessor.from_pretrained)
        self._model = network("segmenter", name, SamModel, device)

    def describe(self) -> Mapping[str, Any]:
        """Return JSON-like facts."""
        return {"name": self._name}

    @torch.inference_mode()
    def __call__(self, image: Image.Image, boxes: Floats) -> npt.NDArray[np.float32]:
        """Return log odds (K, H, W) that a pixel belongs to the object in each of the boxes (K, 4), fractions."""
        prompts = (boxes * np.array([image.width, image.height] * 2)).tolist()
        inputs = self._processor(image, input_boxes=[prompts], return_tensors="pt")
        sizes = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
        values = {key: value.float().to(self._device) for key, value in inputs.items()}
        answer = self._model(**values, multimask_output=False)
        masks = self._processor.post_process_masks(answer.pred_masks.float().cpu(), *sizes, binarize=False)
        logits: npt.NDArray[np.float32] = masks[0][:, 0].numpy()
        return logits
