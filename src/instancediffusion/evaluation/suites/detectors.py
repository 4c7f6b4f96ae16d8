"""Detectors of a fixed list of classes: networks of `transformers`, and files that another program wrote."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from instancediffusion.errors import ModelError, SettingsError
from instancediffusion.geometry import mask_box, rle_decode

from .models import Bools, Detection, model_kind, network, opened
from .suite import NotScoredError

DETECTOR = "tue-mps/coco_instance_eomt_large_640"
"""The default: boxes and masks of COCO's 80 classes (EoMT, 0.3 B parameters; MIT licence)."""

MASKED = ("eomt", "eomt_dinov3", "mask2former", "maskformer")
"""Model types that give masks: a class and a mask for each query."""

MOST = 100
"""Detections of a picture that are kept, the surest ones."""

LOWEST = 0.001
"""Confidence from which a detection is kept; average precision ranks even unsure ones."""


class TransformersDetector:
    """Any object detector or instance segmenter of `transformers` that has a list of classes.

    Args:
        name: on the hub, or a folder: DETR, RT-DETR, D-FINE, YOLOS, ... for boxes; one of the kinds in `MASKED` for
            boxes and masks.
        device: where it runs.

    Raises:
        ModelError: it is not there, is incomplete, or is no such model.
    """

    def __init__(self, name: str = DETECTOR, device: str = "cpu") -> None:
        from transformers import AutoImageProcessor, AutoModelForObjectDetection, AutoModelForUniversalSegmentation
        from transformers.models.auto.modeling_auto import MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES

        kind = model_kind("detector", name)
        self._name, self._device, self._masks = name, device, kind in MASKED
        if not self._masks and kind not in MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES:
            raise ModelError(
                f"detector: {name} is a model of the kind {kind!r}, which has no list of classes to detect; "
                f"take a DETR, RT-DETR, D-FINE or YOLOS for boxes, one of {', '.join(MASKED)} for masks"
            )
        family = AutoModelForUniversalSegmentation if self._masks else AutoModelForObjectDetection
        self._processor = opened("detector", name, AutoImageProcessor.from_pretrained)
        self._model = network("detector", name, family, device)
        names = self._model.config.id2label
        self._labels = {int(number): str(label) for number, label in names.items() if label not in ("N/A", "")}

    @property
    def labels(self) -> Sequence[str]:
        """The classes it knows."""
        return list(self._labels.values())

    def describe(self) -> Mapping[str, Any]:
        """Return JSON-like facts."""
        return {"name": self._name, "masks": self._masks, "classes": len(self._labels)}

    @torch.inference_mode()
    def __call__(self, image: Image.Image, name: str) -> list[Detection]:  # noqa: ARG002
        """Return the detections."""
        inputs = self._processor(images=image, return_tensors="pt").to(self._device)
        answer = self._model(**inputs)
        size = [(image.height, image.width)]
        if self._masks:
            return self._masked(answer, inputs, size[0])
        (found,) = self._processor.post_process_object_detection(answer, threshold=LOWEST, target_sizes=size)
        sides = np.array([image.width, image.height] * 2, np.float64)
        boxes = found["boxes"].double().cpu().numpy() / sides
        numbers, scores = found["labels"].tolist(), found["scores"].double().cpu().tolist()
        return [
            Detection(self._labels[number], np.clip(box, 0, 1), score)
            for number, box, score in zip(numbers, boxes, scores, strict=True)
            if number in self._labels
        ]

    def _masked(self, answer: Any, inputs: Mapping[str, Tensor], size: tuple[int, int]) -> list[Detection]:
        """Read the surest pairs of a query and a class, as these models are scored on COCO (Cheng et al. 2022).

        The last class is "no object". A pair's confidence is that of the class times the mean of the mask within.
        """
        chances = answer.class_queries_logits[0].float().softmax(-1)[:, :-1]
        surest = chances.flatten().topk(min(MOST, chances.numel()))
        masks = self._mask_logits(answer, inputs, size).cpu()
        detections = []
        for chance, flat in zip(surest.values.tolist(), surest.indices.tolist(), strict=True):
            query, label = divmod(flat, chances.shape[1])
            mask: Bools = (masks[query] > 0).numpy()
            box = mask_box(mask)
            if box is not None and label in self._labels:
                score = chance * float(masks[query].sigmoid()[masks[query] > 0].mean())
                if score >= LOWEST:
                    detections.append(Detection(self._labels[label], np.array(box), score, mask))
        return detections

    def _mask_logits(self, answer: Any, inputs: Mapping[str, Tensor], size: tuple[int, int]) -> Tensor:
        """Return (Q, H, W) on the picture's pixels; margins that the processor added are cut off."""
        logits = answer.masks_queries_logits.float()
        height, width = inputs["pixel_values"].shape[-2:]
        logits = interpolate(logits, (height, width), mode="bilinear", align_corners=False)
        if "pixel_mask" in inputs:
            there = inputs["pixel_mask"][0] > 0
            height, width = int(there.any(1).sum()), int(there.any(0).sum())
        elif getattr(self._processor, "do_pad", False):  # scaled to fit, margins on the right or below
            scale = min(height / size[0], width / size[1])
            height, width = min(height, round(size[0] * scale)), min(width, round(size[1] * scale))
        cut = logits[..., : max(height, 1), : max(width, 1)]
        return interpolate(cut, size, mode="bilinear", align_corners=False)[0]


class FileDetector:
    """What another program found, from a COCO results file: a list of image_id, category_id, bbox, score, segmentation.

    Such as the `predictions.json` of `yolo val ... save_json=True` (Ultralytics, under AGPL, is thus run by the user
    and never imported). Lengths are pixels of the pictures; `image_id` is the name of a picture without suffix, or a
    number that such names spell with leading zeros.

    Args:
        path: the file.
        names: category_id -> name, such as those of the annotations file.

    Raises:
        SettingsError: it is no such file.
    """

    def __init__(self, path: Path, names: Mapping[int, str]) -> None:
        self._path, self._names = path, names
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise SettingsError(f"detections: {path} is no JSON ({str(error)[:80]})") from None
        if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
            raise SettingsError(f"detections: {path} is no list of COCO results (image_id, category_id, bbox, score)")
        self._entries: dict[str, list[Mapping[str, Any]]] = {}
        for number, entry in enumerate(entries):
            if (fault := _fault(entry)) is not None:
                raise SettingsError(f"detections: {path}: entry {number}: {fault}")
            if int(entry["category_id"]) not in names:
                raise SettingsError(
                    f"detections: {path}: entry {number}: category_id {entry['category_id']} has no name; the "
                    "names are those of the categories of the annotations file"
                )
            self._entries.setdefault(_key(entry["image_id"]), []).append(entry)

    @property
    def labels(self) -> Sequence[str]:
        """The classes of the annotations file."""
        return list(dict.fromkeys(self._names.values()))

    def describe(self) -> Mapping[str, Any]:
        """Return JSON-like facts."""
        return {"file": self._path.name, "pictures": len(self._entries)}

    def __call__(self, image: Image.Image, name: str) -> list[Detection]:
        """Return what the file says of the picture of that name."""
        sides, found = np.array([image.width, image.height] * 2, np.float64), []
        for entry in self._entries.get(_key(name.rpartition("/")[2]), ()):
            x, y, width, height = entry["bbox"]
            box = np.clip(np.array([x, y, x + width, y + height]) / sides, 0, 1)
            mask, segmentation = None, entry.get("segmentation")
            if isinstance(segmentation, Mapping):
                try:
                    rows, columns = segmentation["size"]
                    mask = rle_decode(segmentation["counts"], (int(rows), int(columns)))
                except (KeyError, TypeError, ValueError) as error:
                    raise NotScoredError(f"{self._path}: its segmentation is damaged ({error})") from None
            found.append(Detection(self._names[int(entry["category_id"])], box, float(entry["score"]), mask))
        return found


def _fault(entry: Mapping[str, Any]) -> str | None:
    for key in ("image_id", "category_id", "bbox", "score"):
        if key not in entry:
            return f"has no {key}"
    box = entry["bbox"]
    numbers = [*box, entry["score"], entry["category_id"]] if isinstance(box, list) and len(box) == 4 else [None]
    good = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in numbers)
    return None if good else "bbox is not four finite numbers x, y, width, height, or score or category_id is none"


def _key(name: object) -> str:
    text = str(name)
    return text.lstrip("0") or "0" if text.isdigit() else text
