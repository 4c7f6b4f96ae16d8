"""Detectors: whoever says which objects a picture shows, so that what is not as told can be left out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from instancediffusion.errors import CheckpointError
from instancediffusion.evaluation import Judge, PictureJudge
from instancediffusion.evaluation.seen import Picture, as_rgb
from instancediffusion.geometry import rle_decode, rle_encode

Bools = npt.NDArray[np.bool_]
BATCH = 8


@dataclass(frozen=True, eq=False)
class Detection:
    """One object that is seen.

    Attributes:
        label: what it is.
        box: x0, y0, x1, y1, fractions of the picture; of the whole object if `whole` is given, else of what is seen.
        score: 0..1.
        visible: (H, W) bool: the pixels that show it; None if the detector gives no masks.
        whole: (H, W) bool: all of it, hidden parts guessed; None if the detector guesses none.
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
    """Whoever says what is to be seen in pictures."""

    def detect(self, images: Sequence[Picture], labels: Sequence[str]) -> list[list[Detection]]:
        """Look at pictures (PIL, or (H, W, 3) uint8).

        Args:
            images: the pictures; each is judged as it would be alone.
            labels: the classes of the data set; a detector of fixed classes may ignore them.
        """
        ...

    def describe(self) -> Mapping[str, Any]:
        """Return JSON-like facts that decide what it sees: its name, a hash or revision of its weights."""
        ...


class JudgeDetector:
    """The blind judge as a detector: boxes of whole objects, visible masks, guessed hidden parts.

    Args:
        judge: see `evaluation.PictureJudge`.
    """

    def __init__(self, judge: PictureJudge) -> None:
        self.judge = judge

    def detect(self, images: Sequence[Picture], labels: Sequence[str]) -> list[list[Detection]]:  # noqa: ARG002
        """Look at pictures; the labels are the kinds that the judge has learned."""
        found = []
        for seen in self.judge.look(images):
            detections = []
            for index, one in enumerate(seen.instances):
                x0, y0, x1, y1 = (float(v) for v in np.clip(one.box, 0, 1))
                visible = seen.mask(index)
                whole = None if seen.wholes is None else seen.wholes[index] | visible
                masks = {"visible": visible if visible.any() else None, "whole": whole}
                detections.append(Detection(one.name, (x0, y0, x1, y1), float(one.confidence), **masks))
            found.append(detections)
        return found

    def describe(self) -> Mapping[str, Any]:
        """Return the judge's facts."""
        return {"detector": "judge", **self.judge.describe()}


class TransformersDetector:
    """A detector of `transformers`: of fixed classes (DETR, RT-DETR, YOLOS), or of classes in words (OWL-ViT, DINO).

    Args:
        model: an `AutoModelForObjectDetection` or `AutoModelForZeroShotObjectDetection`.
        processor: its processor.
        facts: what `describe` tells.
        threshold: least score of what is told at all; the filter has a bound of its own.
    """

    def __init__(self, model: Any, processor: Any, facts: Mapping[str, Any], threshold: float = 0.05) -> None:
        self.model, self.processor, self.threshold = model.eval(), processor, threshold
        self.facts = {"detector": type(model).__name__, "threshold": threshold, **facts}
        self.in_words = hasattr(processor, "tokenizer")

    @classmethod
    def load(cls, name: str, device: str = "cpu") -> TransformersDetector:
        """Open a folder or hub id; of weights, only safetensors are read.

        Raises:
            CheckpointError: it is no detector of `transformers`, or cannot be loaded.
        """
        import transformers

        options: dict[str, Any] = {"use_safetensors": True}
        mapping = transformers.models.auto.modeling_auto.MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES
        try:
            config = transformers.AutoConfig.from_pretrained(name)
            words = config.model_type in mapping
            kind = f"AutoModelFor{'ZeroShot' if words else ''}ObjectDetection"
            model = getattr(transformers, kind).from_pretrained(name, **options)
            reader = transformers.AutoProcessor if words else transformers.AutoImageProcessor
            processor = reader.from_pretrained(name)
        except (OSError, ValueError, ImportError, KeyError) as error:
            told = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CheckpointError(
                f"detector {name}: {told}; give the folder of a judge, or a detector of transformers"
            ) from error
        revision = getattr(config, "_commit_hash", None)
        return cls(model.to(device), processor, {"name": name, "revision": revision, "weights": _weights(name)})

    def detect(self, images: Sequence[Picture], labels: Sequence[str]) -> list[list[Detection]]:
        """Look at pictures; a detector of fixed classes tells all of them."""
        import torch

        found: list[list[Detection]] = []
        for start in range(0, len(images), BATCH):
            batch = [as_rgb(image) for image in images[start : start + BATCH]]
            sizes = [(image.height, image.width) for image in batch]
            asked = {"text": [list(labels)] * len(batch)} if self.in_words else {}
            inputs = self.processor(images=batch, return_tensors="pt", **asked).to(self.model.device)
            with torch.inference_mode():
                outputs = self.model(**inputs)
            found += [
                self._detections(result, size, labels)
                for result, size in zip(self._read(outputs, inputs, sizes, asked), sizes, strict=True)
            ]
        return found

    def _read(self, outputs: Any, inputs: Any, sizes: Sequence[tuple[int, int]], asked: Mapping[str, Any]) -> Any:
        if not self.in_words:
            return self.processor.post_process_object_detection(outputs, self.threshold, sizes)
        options: dict[str, Any] = {"threshold": self.threshold, "target_sizes": sizes, "text_labels": asked["text"]}
        if "input_ids" in inputs and "GroundingDino" in type(self.model).__name__:
            options["input_ids"] = inputs["input_ids"]
        return self.processor.post_process_grounded_object_detection(outputs, **options)

    def _detections(self, result: Mapping[str, Any], size: tuple[int, int], labels: Sequence[str]) -> list[Detection]:
        names = result.get("text_labels")
        if names is None:
            numbers = [int(number) for number in result["labels"]]
            names = [labels[n] if self.in_words else self.model.config.id2label[n] for n in numbers]
        scale = np.array([size[1], size[0]] * 2)
        boxes = np.clip(result["boxes"].detach().cpu().double().numpy().reshape(-1, 4) / scale, 0, 1)
        found = []
        for name, box, score in zip(names, boxes, result["scores"], strict=True):
            if (box[2:] > box[:2]).all():
                x0, y0, x1, y1 = (float(v) for v in box)
                found.append(Detection(str(name), (x0, y0, x1, y1), float(score)))
        return found

    def describe(self) -> Mapping[str, Any]:
        """Return the facts."""
        return self.facts


def load_detector(name: str, device: str = "cpu") -> Detector:
    """Open a detector: the folder of a judge, or what `TransformersDetector.load` takes.

    Raises:
        CheckpointError: it is neither.
    """
    try:
        values = json.loads((Path(name) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        values = {}
    if isinstance(values, dict) and "judge" in values:
        return JudgeDetector(Judge.load(name))
    return TransformersDetector.load(name, device)


def _weights(name: str) -> str | None:
    from instancediffusion.checkpoints import weights_sha256

    return weights_sha256(Path(name)) if Path(name).is_dir() else None
