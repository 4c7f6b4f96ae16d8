"""Grounding DINO (and MM Grounding DINO): boxes for tags.

The published recipe takes a box's name from all tokens that pass a threshold, which gives "coffee coffee cup cup", two
tags glued together, or no word at all, and cuts off tags beyond 256 tokens. Here every tag has a score of its own, the
mean over its tokens as in the evaluation of Grounding DINO (arXiv 2303.05499), a box has the tag that scores
best, and tags that do not fit into one prompt go into several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..protocols import Detection, Pixels
from .pinning import Found
from .pixels import Preparation, chunks, same_shapes

FLOOR = 0.05
"""Detections below this score are never passed on, whatever the settings: most of the 900 queries are nothing."""


class GroundingDino:
    """The detector; see the module.

    Args:
        found: a model of type `grounding-dino` or `mm-grounding-dino`.
        batch_size: prompts that go through it at a time.
    """

    def __init__(self, found: Found, batch_size: int) -> None:
        from transformers import AutoModelForZeroShotObjectDetection

        self.pin: Mapping[str, Any] = found.pin
        self._model = found.load(AutoModelForZeroShotObjectDetection)
        self._tokenizer = found.tokenizer()
        self._preparation = Preparation(found.preparation(), found.name, found.device)
        self._longest, self._batch_size, self._device = int(found.config.max_text_len), batch_size, found.device

    def prompts(self, tags: Sequence[str]) -> list[list[str]]:
        """Tags in groups that fit into one prompt each; a tag that fits into none is left out."""
        room = self._longest - 2  # what opens and closes a text
        groups: list[list[str]] = []
        used = room
        for tag in tags:
            length = len(self._tokenizer(f"{tag}.", add_special_tokens=False)["input_ids"])
            if length > room:
                continue
            if used + length > room:
                groups.append([])
                used = 0
            groups[-1].append(tag)
            used += length
        return groups

    def detect(self, pictures: Sequence[Pixels], tags: Sequence[Sequence[str]]) -> list[list[Detection]]:
        """See `stages.Detector`."""
        asked = [(index, group) for index, found in enumerate(tags) for group in self.prompts(found)]
        detections: list[list[Detection]] = [[] for _ in pictures]
        sizes = [self._preparation.target((picture.shape[1], picture.shape[0])) for picture in pictures]
        # Padding changes what the backbone sees, and so the scores: only pictures of one size share a batch.
        for alike in same_shapes([sizes[index] for index, _ in asked]):
            for part in chunks(len(alike), self._batch_size):
                rows = [asked[number] for number in alike[part]]
                for (index, _), found in zip(rows, self._run(pictures, rows), strict=True):
                    detections[index] += found
        return detections

    @torch.inference_mode()
    def _run(self, pictures: Sequence[Pixels], rows: Sequence[tuple[int, list[str]]]) -> list[list[Detection]]:
        pixels, inside = self._preparation.padded([pictures[index] for index, _ in rows])
        texts = ["".join(f"{tag}. " for tag in group).strip() for _, group in rows]
        encoded = self._tokenizer(
            texts, padding=True, return_tensors="pt", return_offsets_mapping=True, return_token_type_ids=True
        )
        offsets = encoded.pop("offset_mapping")
        output = self._model(pixel_values=pixels, pixel_mask=inside, **encoded.to(self._device))
        scores = output.logits.float().sigmoid().cpu()
        boxes = output.pred_boxes.float().cpu()  # centre and size, in fractions of the picture
        found = []
        for row, (index, group) in enumerate(rows):
            height, width = pictures[index].shape[:2]
            found.append(_detections(scores[row], boxes[row], _spans(group, offsets[row]), group, (width, height)))
        return found


def _spans(group: Sequence[str], offsets: torch.Tensor) -> list[torch.Tensor]:
    """For each tag of a prompt which tokens (T,) are its own."""
    spans, start = [], 0
    for tag in group:
        end = start + len(tag)
        spans.append((offsets[:, 0] < end) & (offsets[:, 1] > start) & (offsets[:, 1] > offsets[:, 0]))
        start = end + 2  # ". "
    return spans


def _detections(
    scores: torch.Tensor,
    boxes: torch.Tensor,
    spans: Sequence[torch.Tensor],
    group: Sequence[str],
    size: tuple[int, int],
) -> list[Detection]:
    """The detections of one prompt from scores (Q, 256) and boxes (Q, 4)."""
    columns = [scores[:, : len(span)][:, span] for span in spans]
    means = [column.mean(1) if column.shape[1] else scores.new_zeros(len(scores)) for column in columns]
    best, chosen = torch.stack(means, dim=1).max(dim=1)
    found = []
    for query in torch.nonzero(best >= FLOOR).flatten().tolist():
        x, y, width, height = boxes[query].tolist()
        across, down = size
        box = ((x - width / 2) * across, (y - height / 2) * down, (x + width / 2) * across, (y + height / 2) * down)
        found.append(Detection(group[int(chosen[query])], float(best[query]), box))
    return found
