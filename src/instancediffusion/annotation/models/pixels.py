"""Pictures as models take them: resized by PIL, normalised, stacked. What `preprocessor_config.json` says is done."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from instancediffusion.errors import ModelError

from ..protocols import Pixels


class Preparation:
    """How one model wants its pictures.

    Args:
        values: of `preprocessor_config.json`: `size`, `resample`, `image_mean`, `image_std`, `rescale_factor`, the
            switches `do_resize`, `do_rescale`, `do_normalize`, and `keep_aspect_ratio` and `ensure_multiple_of` of DPT.
        name: of the model, for errors.
        device: where tensors go.

    Raises:
        ModelError: the size is written in a way that is not known, or pictures would be cropped, so that
            detections would be in other coordinates.
    """

    def __init__(self, values: Mapping[str, Any], name: str, device: torch.device) -> None:
        self._values, self._device = dict(values), device
        size = values.get("size")
        self.size = {"height": size, "width": size} if isinstance(size, int) else dict(size or {})
        known = ({"height", "width"}, {"shortest_edge", "longest_edge"}, {"longest_edge"})
        if {key for key, value in self.size.items() if value} not in known:
            raise ModelError(f"{name}: preprocessor_config.json: size = {size!r} is not known")
        if values.get("do_center_crop"):
            raise ModelError(f"{name}: preprocessor_config.json: do_center_crop cuts parts of pictures off")

    def target(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) that a picture of (width, height) is resized to."""
        if not self._values.get("do_resize", True):
            return size
        width, height = size
        if "height" in self.size:
            return self._fitted(width, height)
        longest = self.size["longest_edge"]
        if "shortest_edge" not in self.size:  # SAM: the longer side, rounded half up
            scale = longest / max(size)
            return max(int(width * scale + 0.5), 1), max(int(height * scale + 0.5), 1)
        return _short_side(width, height, self.size["shortest_edge"], longest)

    def _fitted(self, width: int, height: int) -> tuple[int, int]:
        across, down = self.size["width"] / width, self.size["height"] / height
        if self._values.get("keep_aspect_ratio"):  # DPT: the side that changes less decides
            across = down = across if abs(1 - across) < abs(1 - down) else down
        multiple = int(self._values.get("ensure_multiple_of") or 1)
        return (
            max(round(across * width / multiple) * multiple, multiple),
            max(round(down * height / multiple) * multiple, multiple),
        )

    def tensor(self, picture: Pixels) -> Tensor:
        """(3, h, w) float32 of one picture."""
        height, width = picture.shape[:2]
        target = self.target((width, height))
        resample = Image.Resampling(self._values.get("resample", Image.Resampling.BILINEAR))
        image = Image.fromarray(picture)
        array = np.asarray(image if image.size == target else image.resize(target, resample), np.float32)
        if self._values.get("do_rescale", True):
            array = array * np.float32(self._values.get("rescale_factor", 1 / 255))
        if self._values.get("do_normalize", True):
            array = (array - np.float32(self._values["image_mean"])) / np.float32(self._values["image_std"])
        return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1))).to(self._device)

    def padded(self, pictures: Sequence[Pixels], to: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """Pictures in one tensor, with zeros at their right and lower sides.

        Args:
            pictures: of any sizes.
            to: (width, height) to fill; the largest of the pictures if None.

        Returns:
            (B, 3, H, W) float32, and (B, H, W) int64 with 1 where a picture is.
        """
        tensors = [self.tensor(picture) for picture in pictures]
        width = max([tensor.shape[2] for tensor in tensors] + [to[0] if to else 0])
        height = max([tensor.shape[1] for tensor in tensors] + [to[1] if to else 0])
        filled = torch.zeros(len(tensors), 3, height, width, device=self._device)
        inside = torch.zeros(len(tensors), height, width, dtype=torch.int64, device=self._device)
        for row, tensor in enumerate(tensors):
            filled[row, :, : tensor.shape[1], : tensor.shape[2]] = tensor
            inside[row, : tensor.shape[1], : tensor.shape[2]] = 1
        return filled, inside


def _short_side(width: int, height: int, shortest: int, longest: int) -> tuple[int, int]:
    """DETR's rule: the shorter side becomes `shortest`, unless the longer one would pass `longest`."""
    low, high = min(width, height), max(width, height)
    side = float(shortest)
    if high / low * shortest > longest:
        side = longest * low / high
    short = round(side)
    if low == short:
        return width, height
    long = int(side * high / low)
    return (max(short, 1), max(long, 1)) if width < height else (max(long, 1), max(short, 1))


def same_shapes(sizes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Numbers of the items of each shape, in the order in which shapes come up."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, size in enumerate(sizes):
        groups.setdefault(size, []).append(index)
    return list(groups.values())


def chunks(count: int, size: int) -> list[slice]:
    """Slices of at most `size` that cover `count` items."""
    return [slice(start, start + size) for start in range(0, size * math.ceil(count / size), size)]
