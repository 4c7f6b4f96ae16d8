"""PNG files to bitmaps, unpacking no more than was asked for."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .problem_report import Report

if TYPE_CHECKING:
    from PIL import Image


def read_png(report: Report, data: bytes, size: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
    """Return the foreground (height, width) of a PNG, or None with a note of what is wrong with it.

    A pixel is set if it is not black (not number 0 in a file with a palette) and at least half opaque.
    """
    from PIL import Image

    if len(data) < 24 or not data.startswith(b"\x89PNG\r\n\x1a\n"):
        report.error("$", "is not a PNG file", "save the mask as PNG")
        return None
    width, height = struct.unpack(">II", data[16:24])  # the header says how much would be unpacked
    if (height, width) != tuple(size):
        message = f"the PNG is {width} x {height} pixels, not {size[1]} x {size[0]}"
        report.error("$", message, "save it at the size of the canvas")
        return None
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            return _foreground(image)
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, struct.error) as error:
        report.error("$", f"is not a PNG file that can be read ({str(error)[:80]})", "save the mask as PNG")
        return None


def _foreground(image: Image.Image) -> npt.NDArray[np.bool_]:
    if image.mode == "P":
        return np.array(np.asarray(image) != 0, dtype=bool)
    if "A" in image.mode:
        bands = np.asarray(image.convert("LA"))
        return np.asarray((bands[..., 0] != 0) & (bands[..., 1] >= 128))
    pixels = np.asarray(image)
    return np.array(pixels.any(axis=-1) if pixels.ndim == 3 else pixels != 0, dtype=bool)
