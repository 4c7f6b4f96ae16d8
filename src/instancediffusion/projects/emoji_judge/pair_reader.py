"""The pair reader: which of two overlapping objects is in front, from the pixels and the two boxes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from instancediffusion.evaluation.orders import LEAST_SHARE, Overlap
from instancediffusion.evaluation.seen import Floats

from .judge_config import JudgeConfig
from .reader import WindowNetwork, cut_out, inside_window

LOOKS = 8
"""Features of a pixel, beside its colours, by which it is found to belong to one object or the other."""

ROOM = 1.1
"""Side of the square window around two boxes, in longer sides of the box around both."""


@dataclass(frozen=True)
class PairReading:
    """Predictions for M pairs.

    Attributes:
        owner: (M, P / 2, P / 2) logits that a pixel which both objects would cover is the first one's.
        mask: (M, 4, P / 2, P / 2) logits: the visible mask of each of the two, then the amodal mask of each.
    """

    owner: Tensor
    mask: Tensor

    @property
    def front(self) -> Tensor:
        """(M,) logits that the first object is in front: the mean over the pixels that both would most likely cover."""
        shared = self.mask[:, 2:].sigmoid().prod(1)
        return (self.owner * shared).sum((1, 2)) / shared.sum((1, 2)).clamp(min=1e-6)


class PairNetwork(WindowNetwork):
    """Windows to a `PairReading`.

    Args:
        config: sizes; it must have `pair_widths`.
    """

    def __init__(self, config: JudgeConfig) -> None:
        self.side_px = config.pair_px
        super().__init__(config.pair_px, config.pair_widths, 0, 5, 0, 5 + LOOKS)

        self.alike = nn.Parameter(torch.zeros(()))

    def forward(self, windows: Tensor) -> PairReading:
        """Read windows (M, 5, P, P): colours -1..1, then 1 in the first box and 1 in the second, 0 around each.

        Every pair is read in both roles, so exchanging the two objects exchanges the masks and turns the sign of
        `owner`, exactly: the network cannot favour the object that is named first.
        """
        count = len(windows)
        _, maps = self.read(torch.cat([windows, windows[:, [0, 1, 2, 4, 3]]]))
        owner, mask, looks = maps.split([1, 4, LOOKS], 1)
        # What both cover looks like the one or like the other: like the mean of what is surely of that one alone.
        colours = functional.avg_pool2d(windows[:, :3], 2).repeat(2, 1, 1, 1)
        looks = torch.cat([looks, colours.to(looks.dtype)], 1)
        visible, whole = mask.detach()[:, :2].sigmoid(), mask.detach()[:, 2:].sigmoid()
        alone = visible * (1 - whole.flip(1))
        means = torch.einsum("mkhw,mchw->mkc", alone, looks) / alone.sum((2, 3)).clamp(min=1e-3)[..., None]
        distance = (looks[:, None] - means[..., None, None]).pow(2).sum(2)
        owner = owner[:, 0] + self.alike.exp() * (distance[:, 1] - distance[:, 0])
        return PairReading((owner[:count] - owner[count:]) / 2, (mask[:count] + mask[count:][:, [1, 0, 3, 2]]) / 2)

    def start_from(self, reader: WindowNetwork) -> None:
        """Take the weights of a reader of single windows that are of the same shape; it knows no second box."""
        own = self.state_dict()
        taken = {name: value for name, value in reader.state_dict().items() if name in own}
        known = taken["stem.weight"]
        first = torch.zeros_like(own["stem.weight"])
        if len(known) == len(first):
            first[:, : known.shape[1]] = known
            taken["stem.weight"] = first
        fitting = {name: value for name, value in taken.items() if value.shape == own[name].shape}
        self.load_state_dict(fitting, strict=False)


def pair_window(boxes: Floats, image: Image.Image) -> Floats:
    """Return the square window (4,), x0 y0 x1 y1 pixels, around two boxes (2, 4), fractions of a picture."""
    pixels = boxes * np.array([image.width, image.height] * 2)
    low, high = pixels[:, :2].min(0), pixels[:, 2:].max(0)
    half = max(float((high - low).max()), 4.0) * (ROOM / 2)
    middle = (low + high) / 2
    return np.concatenate([middle - half, middle + half])


def pair_crop(image: Image.Image, boxes: Floats, window: Floats, side_px: int) -> Tensor:
    """Crop a window (4,), pixels, with two boxes (2, 4), fractions, from an RGB picture: (5, P, P) for the network."""
    inside = [inside_window(box, window, image, side_px) for box in boxes]
    return torch.cat([cut_out(image, window[None], side_px)[0], torch.stack(inside)])


def read_pairs(network: PairNetwork, image: Image.Image, pairs: Sequence[Floats]) -> list[Overlap | None]:
    """Say what the overlap of two objects shows, for each of some pairs in an RGB picture.

    Args:
        network: the trained one.
        image: the picture.
        pairs: of each, the boxes (2, 4) of both objects, x0 y0 x1 y1 fractions.

    Returns:
        Of each the predicted overlap of the whole objects, whose the pixels in it are, and who leads; None where that
        overlap is too small to say anything.
    """
    if not pairs:
        return []
    windows = [pair_window(boxes, image) for boxes in pairs]
    crops = [pair_crop(image, boxes, window, network.side_px) for boxes, window in zip(pairs, windows, strict=True)]
    reading = network(torch.stack(crops).contiguous(memory_format=torch.channels_last))
    lead = (reading.front / 2).tanh().tolist()  # 2 p - 1
    found: list[Overlap | None] = []
    for number, (mask, window) in enumerate(zip(reading.mask, windows, strict=True)):
        area = float(window[2] - window[0]) ** 2 / mask[0].numel()
        shared = (mask[2:] > 0).all(0)
        pixels = round(float(shared.sum()) * area)
        if pixels < max(1.0, LEAST_SHARE * image.width * image.height):
            found.append(None)
            continue
        own, seen = reading.owner[number][shared] > 0, mask[:2, shared].amax(0) > 0
        first, second = (float((seen & one).float().mean()) for one in (own, ~own))
        found.append(Overlap(first, second, pixels, lead[number]))
    return found
