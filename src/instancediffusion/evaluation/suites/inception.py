"""The Inception network of published FID figures, from the TorchScript file that clean-fid takes.

The file is `inception-2015-12-05.pt` (NVIDIA, 2021: the network of Heusel et al. 2017 with its own weights). It is not
part of this package. TorchScript is a program: take the file from its authors only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from instancediffusion.errors import ModelError
from instancediffusion.runs import file_sha256

from .models import Floats

SUFFIX = ".pt"
SIDE = 299


def is_inception(name: str) -> bool:
    """Whether a name is that of a TorchScript file rather than of a model of transformers."""
    return name.endswith(SUFFIX)


class Inception:
    """Features as clean-fid computes them in its mode `clean` (Parmar et al. 2022).

    A picture is resized to 299 x 299 by Pillow's bicubic filter, each channel in 32 bits without rounding, and given
    to the file's `layers` as (x - 128) / 128.

    Args:
        name: the file.
        device: where it runs.

    Raises:
        ModelError: it is not there, is no TorchScript, or is another network.
    """

    def __init__(self, name: str, device: str = "cpu") -> None:
        path = Path(name).expanduser()
        if not path.is_file():
            raise ModelError(f"features: there is no file {name!r}; clean-fid names its address")
        try:
            whole: Any = torch.jit.load(path, map_location=device)
            self._layers = whole.eval().layers
        except (RuntimeError, ValueError, AttributeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(f"features: {name} is not clean-fid's inception-2015-12-05.pt ({reason[:100]})") from None
        self._device = device
        self._facts = {"name": path.name, "sha256": file_sha256(path), "resized": "bicubic, antialiased (clean)"}

    def describe(self) -> Mapping[str, Any]:
        """Return JSON-like facts."""
        return self._facts

    @torch.inference_mode()
    def __call__(self, image: Image.Image) -> Floats:
        """Return (2048,)."""
        channels = [
            np.asarray(Image.fromarray(channel).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
            for channel in np.moveaxis(np.asarray(image.convert("RGB"), np.float32), 2, 0)
        ]
        pixels = torch.from_numpy(np.clip(np.stack(channels), 0, 255))[None].to(self._device)
        found = self._layers((pixels - 128) / 128)
        return np.asarray(found.double().flatten().cpu().numpy(), np.float64)
