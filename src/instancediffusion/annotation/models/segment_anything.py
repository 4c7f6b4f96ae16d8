"""Segment Anything (SAM, SAM-HQ, SAM 2): masks for boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from instancediffusion.scene import Mask

from ..protocols import PixelBox, Pixels
from .pinning import Found
from .pixels import Preparation, chunks

CLASSES = {"sam": "SamModel", "sam_hq": "SamHQModel", "sam2": "Sam2Model", "sam2_video": "Sam2Model"}
"""Model type -> class. The published SAM 2 weights say `sam2_video`; pictures need its image part alone."""

_BOXES = 64  # of one picture that are decoded at a time


class SegmentAnything:
    """The segmenter: one mask for each box, the model's single best.

    Args:
        found: a model of a type in `CLASSES`.
        batch_size: pictures that go through it at a time.
    """

    def __init__(self, found: Found, batch_size: int) -> None:
        import transformers

        self.pin: Mapping[str, Any] = found.pin
        self._model = found.load(getattr(transformers, CLASSES[found.kind]))
        values = found.preparation()
        self._preparation = Preparation(values, found.name, found.device)
        size = self._preparation.size
        padded = values.get("pad_size") or {"width": size.get("longest_edge"), "height": size.get("longest_edge")}
        frame = size if "height" in size else padded
        self._frame = int(frame["width"]), int(frame["height"])
        self._batch_size, self._device = batch_size, found.device

    def segment(self, pictures: Sequence[Pixels], boxes: Sequence[Sequence[PixelBox]]) -> list[list[Mask | None]]:
        """See `stages.Segmenter`."""
        masks: list[list[Mask | None]] = [[] for _ in pictures]
        wanted = [index for index, found in enumerate(boxes) if found]
        for part in chunks(len(wanted), self._batch_size):
            rows = wanted[part]
            for start in range(0, max(len(boxes[index]) for index in rows), _BOXES):
                asked = [(index, boxes[index][start : start + _BOXES]) for index in rows]
                asked = [(index, found) for index, found in asked if found]
                for (index, _), found in zip(asked, self._run(pictures, asked), strict=True):
                    masks[index] += found
        return masks

    @torch.inference_mode()
    def _run(
        self, pictures: Sequence[Pixels], rows: Sequence[tuple[int, Sequence[PixelBox]]]
    ) -> list[list[Mask | None]]:
        pixels, _ = self._preparation.padded([pictures[index] for index, _ in rows], self._frame)
        most = max(len(found) for _, found in rows)
        prompts = torch.zeros(len(rows), most, 4)
        for row, (index, found) in enumerate(rows):
            height, width = pictures[index].shape[:2]
            across, down = self._preparation.target((width, height))
            scale = torch.tensor([across / width, down / height, across / width, down / height])
            filled = [*found, *[found[-1]] * (most - len(found))]  # decoded independently: more change nothing
            prompts[row] = torch.tensor(filled, dtype=torch.float32) * scale
        output = self._model(pixel_values=pixels, input_boxes=prompts.to(self._device), multimask_output=False)
        masks = []
        for row, (index, found) in enumerate(rows):
            height, width = pictures[index].shape[:2]
            drawn = output.pred_masks[row, : len(found), 0].float()
            masks.append([self._mask(logits, (width, height)) for logits in drawn])
        return masks

    def _mask(self, logits: Tensor, size: tuple[int, int]) -> Mask | None:
        """The mask of logits (h, w), which cover the whole frame, padding too, on a picture of (width, height)."""
        across, down = self._preparation.target(size)
        width, height = self._frame
        large = interpolate(logits[None, None], (height, width), mode="bilinear", align_corners=False)
        inside = large[..., :down, :across]
        found = interpolate(inside, (size[1], size[0]), mode="bilinear", align_corners=False)[0, 0] > 0
        return Mask.from_array(found.cpu().numpy()) if bool(found.any()) else None
