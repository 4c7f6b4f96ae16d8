"""Depth from one picture: Depth Anything and DPT (MiDaS)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn.functional import interpolate

from instancediffusion.errors import ModelError

from ..protocols import Pixels
from .pinning import Found, find
from .pixels import Preparation, chunks, same_shapes

TYPES = ("depth_anything", "dpt")


class MonocularDepth:
    """The depth estimator.

    Relative models give inverse depth, larger = nearer, as it is; metric ones of Depth Anything give metres, which
    are inverted.

    Args:
        found: a model of a type in `TYPES`.
        batch_size: pictures that go through it at a time.
    """

    def __init__(self, found: Found, batch_size: int) -> None:
        from transformers import AutoModelForDepthEstimation

        self.pin: Mapping[str, Any] = found.pin
        self._model = found.load(AutoModelForDepthEstimation)
        self._preparation = Preparation(found.preparation(), found.name, found.device)
        self._metric = getattr(found.config, "depth_estimation_type", "relative") == "metric"
        self._batch_size = batch_size

    @torch.inference_mode()
    def nearness(self, pictures: Sequence[Pixels]) -> list[npt.NDArray[np.float32]]:
        """See `stages.DepthEstimator`."""
        maps: list[npt.NDArray[np.float32]] = [np.zeros((0, 0), np.float32)] * len(pictures)
        sizes = [self._preparation.target((picture.shape[1], picture.shape[0])) for picture in pictures]
        for alike in same_shapes(sizes):
            for part in chunks(len(alike), self._batch_size):
                rows = alike[part]
                pixels, _ = self._preparation.padded([pictures[index] for index in rows])
                predicted = self._model(pixel_values=pixels).predicted_depth.float()
                for index, depth in zip(rows, predicted, strict=True):
                    shape = pictures[index].shape[:2]
                    near = 1 / depth.clamp(min=1e-3) if self._metric else depth
                    drawn = interpolate(near[None, None], shape, mode="bilinear", align_corners=False)
                    maps[index] = drawn[0, 0].cpu().numpy()
        return maps


class NearDepth:
    """The depth estimator for one picture at a time, opened by its name: what evaluation suites call.

    Args:
        name: on the hub, or a folder.
        device: where it runs.

    Raises:
        ModelError: it is not there, or is none of Depth Anything or DPT.
    """

    def __init__(self, name: str, device: str) -> None:
        found = find(name, "depth", torch.device(device))
        if found.kind not in TYPES:
            raise ModelError(f"depth: {name} is a model of the kind {found.kind!r}; take one of {', '.join(TYPES)}")
        self._depth = MonocularDepth(found, 1)

    def describe(self) -> Mapping[str, Any]:
        """Return JSON-like facts."""
        return self._depth.pin

    def __call__(self, image: Image.Image) -> npt.NDArray[np.float64]:
        """Return nearness (H, W)."""
        (near,) = self._depth.nearness([np.asarray(image)])
        return near.astype(np.float64)
