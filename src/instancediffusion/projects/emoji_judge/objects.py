"""From proposed boxes to objects: the reader is run on the proposed window, then on that of the box it predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional

from instancediffusion.evaluation.seen import Floats, Seen, SeenInstance
from instancediffusion.geometry import box_iou

from .judge_config import JudgeConfig
from .reader import ReaderNetwork, Reading, crops_of

LOOKS = 2
SAME = 0.6
"""IoU threshold of non-maximum suppression; the world's objects overlap by .5 at most."""
LEAST_SHARE = 0.05
"""Smallest fraction of its box that a detected object covers with visible pixels."""


@dataclass(frozen=True, eq=False)
class PictureObjects:
    """The objects of one picture.

    Attributes:
        instances: the objects.
        logits: (n, H, W) float32 log odds that a pixel shows each.
        wholes: (n, H, W) bool, predicted amodal masks.
    """

    instances: tuple[SeenInstance, ...]
    logits: npt.NDArray[np.float32]
    wholes: npt.NDArray[np.bool_]

    def seen(self, features: npt.NDArray[np.float32] | None) -> Seen:
        """Assign each pixel to the object it most likely shows."""
        if not len(self.instances):
            return Seen(np.zeros(self.logits.shape[1:], np.uint8), (), features, self.wholes)
        owner = np.where(self.logits.max(0) > 0, self.logits.argmax(0) + 1, 0)
        return Seen(owner.astype(np.uint8), self.instances, features, self.wholes)


def read_objects(
    reader: ReaderNetwork,
    config: JudgeConfig,
    images: Sequence[Image.Image],
    proposed: Sequence[Sequence[tuple[Floats, float]]],
    *,
    told: bool = False,
) -> list[PictureObjects]:
    """Read the objects of pictures.

    Args:
        reader: the network.
        config: its classes, attributes and sizes.
        images: RGB.
        proposed: of each picture, boxes (4,), fractions, with their confidence 0..1.
        told: the boxes are given, exact and of one object each: each is read once, in their order.
    """
    boxes = [np.array([box for box, _ in some], np.float64).reshape(-1, 4) for some in proposed]
    if not sum(map(len, boxes)):
        return [_nothing(image) for image in images]
    for _ in range(1 if told else LOOKS):
        cut = [crops_of(image, some, config.crop_px) for image, some in zip(images, boxes, strict=True)]
        windows = [window for _, window in cut]
        crops = torch.cat([crop for crop, _ in cut])
        reading = reader(crops.contiguous(memory_format=torch.channels_last))
        whole = np.split(reading.box.double().numpy(), np.cumsum([len(some) for some in boxes])[:-1])
        boxes = [_in_picture(some, window, image) for some, window, image in zip(whole, windows, images, strict=True)]
    found, start = [], 0
    for image, some, window, proposals in zip(images, boxes, windows, proposed, strict=True):
        part = slice(start, start + len(some))
        start += len(some)
        found.append(_objects(config, image, some, window, proposals, reading, part, told))
    return found


def _in_picture(boxes: Floats, windows: Floats, image: Image.Image) -> Floats:
    """Bring boxes (M, 4) from fractions of their windows, in pixels, to fractions of the picture."""
    side = windows[:, 2:3] - windows[:, :1]
    pixels = np.tile(windows[:, :2], 2) + boxes * side
    fractions = np.clip(pixels / np.array([image.width, image.height] * 2), 0, 1)
    low, high = fractions[:, :2], np.maximum(fractions[:, 2:], fractions[:, :2] + 1e-3)
    return np.concatenate([low, high], 1)


def _objects(
    config: JudgeConfig,
    image: Image.Image,
    boxes: Floats,
    windows: Floats,
    proposals: Sequence[tuple[Floats, float]],
    reading: Reading,
    part: slice,
    given: bool,
) -> PictureObjects:
    """Keep the readings that are of an object, without duplicates; given boxes are not compared."""
    trust = [one for _, one in proposals]
    kinds = reading.kind[part].softmax(1).double().numpy()
    colours, facings = reading.colour[part].numpy(), reading.facing[part].numpy()
    kept: list[int] = []
    surest = np.argsort(-np.asarray(trust) * (1 - kinds[:, 0]), kind="stable")
    for index in range(len(boxes)) if given else surest:
        duplicate = not given and any(box_iou(boxes[index], boxes[other])[0, 0] >= SAME for other in kept)
        if duplicate or kinds[index, 0] >= 0.5:
            continue
        kept.append(int(index))
    logits = np.full((2, len(kept), image.height, image.width), -np.inf, np.float32)
    for number, index in enumerate(kept):
        _paste(logits[:, number], reading.mask[part][index : index + 1], windows[index])
    instances = tuple(
        SeenInstance(
            config.kinds[int(kinds[index, 1:].argmax())],
            config.colours[int(colours[index].argmax())] if len(config.colours) else None,
            config.facings[int(facings[index].argmax())] if len(config.facings) else None,
            boxes[index],
            float(trust[index] * (1 - kinds[index, 0])),
            proposals[index][0] if given else None,
        )
        for index in kept
    )
    found = PictureObjects(instances, logits[0], logits[1] > 0)
    shown = found.seen(None)
    there = [k for k in range(len(kept)) if shown.mask(k).sum() >= LEAST_SHARE * _area(boxes[kept[k]], image)]
    return PictureObjects(tuple(instances[k] for k in there), found.logits[there], found.wholes[there])


def _nothing(image: Image.Image) -> PictureObjects:
    size = (0, image.height, image.width)
    return PictureObjects((), np.zeros(size, np.float32), np.zeros(size, bool))


def _area(box: Floats, image: Image.Image) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1])) * image.width * image.height


def _paste(canvas: npt.NDArray[np.float32], mask: torch.Tensor, window: Floats) -> None:
    """Write a window's log odds (1, 2, p, p) onto the picture's (2, H, W), in place."""
    x0, y0, x1, y1 = (int(value) for value in np.rint(window))
    size = (max(y1 - y0, 1), max(x1 - x0, 1))
    large = functional.interpolate(mask, size=size, mode="bilinear", align_corners=False)[0].numpy()
    top, left = max(y0, 0), max(x0, 0)
    bottom, right = min(y0 + size[0], canvas.shape[1]), min(x0 + size[1], canvas.shape[2])
    if bottom > top and right > left:
        canvas[:, top:bottom, left:right] = large[:, top - y0 : bottom - y0, left - x0 : right - x0]
