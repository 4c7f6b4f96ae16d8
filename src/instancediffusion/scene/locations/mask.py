"""Masks: the exact pixels of an object."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from instancediffusion.errors import SceneError
from instancediffusion.geometry import (
    compress_runs,
    fill_rings,
    mask_box,
    mask_points,
    outlines,
    rle_area,
    rle_decode,
    rle_encode,
    rle_runs,
)

from ..beside import file_bytes
from ..canvas import Canvas
from ..checks import check_integer, check_keys, check_numbers, check_object, check_text, is_array
from ..limits import MAX_FILE_BYTES, MAX_POLYGON_POINTS, MAX_SIDE_PX
from ..png import read_png
from ..problem_report import Report, child, kind, numbers_text, show
from .kind import BoxUnit, Brush, Colour, TokenLocation, as_list, pixels_of

_URIS = ("data:image/png;base64,",)
_PNG = "A PNG file in the scene's folder, or data:image/png;base64,... with its bytes."


@dataclass(frozen=True)
class Mask(TokenLocation):
    """The exact pixels of an object.

    Attributes:
        size: (height, width) in pixels; that of the scene's canvas.
        counts: COCO compressed run-length string, at least one pixel set. `SceneError` otherwise.
    """

    kind: ClassVar = "mask"
    layer: ClassVar = 0.0

    size: tuple[int, int]
    counts: str

    def __post_init__(self) -> None:
        report, size = Report(), as_list(self.size)
        if not is_array(size) or len(size) != 2:
            report.error("$.size", f"is {show(size)}, not [height, width]", "write [height, width] in pixels")
        else:
            sides = [check_integer(report, f"$.size[{i}]", side, 1, MAX_SIDE_PX) for i, side in enumerate(size)]
            counts: object = self.counts
            if not isinstance(counts, str):
                report.error("$.counts", f"is {kind(counts)}, not a string", "use Mask.from_array")
            elif sides[0] is not None and sides[1] is not None:
                object.__setattr__(self, "size", (sides[0], sides[1]))
                _check_counts(report, counts, self.size)
        report.settle()

    @property
    def array(self) -> npt.NDArray[np.bool_]:
        """The bitmap, (height, width) bool; decoded anew at each use."""
        return rle_decode(self.counts, self.size)

    @property
    def area(self) -> int:
        """Number of set pixels."""
        return rle_area(self.counts, self.size)

    @classmethod
    def from_array(cls, array: npt.ArrayLike) -> Mask:
        """Make a mask from a (height, width) array; anything not zero is set."""
        bitmap = np.asarray(array)
        if bitmap.ndim != 2 or bitmap.size == 0:
            report = Report()
            report.error("$", f"has shape {bitmap.shape}, not (height, width)", "give a bitmap with two axes")
            report.settle()
        return cls(size=(bitmap.shape[0], bitmap.shape[1]), counts=rle_encode(bitmap != 0))

    @classmethod
    def from_png(cls, data: bytes, size: tuple[int, int]) -> Mask:
        """Make a mask from the bytes of a PNG file.

        Args:
            data: the file. A pixel is set if it is not black (not number 0 in a file with a palette) and at least
                half opaque.
            size: (height, width) in pixels the picture must have. Nothing is unpacked if it has another.
        """
        report = Report()
        bitmap = read_png(report, data, size)
        report.settle()
        return cls.from_array(bitmap if bitmap is not None else np.zeros(size, dtype=bool))

    @classmethod
    def read(
        cls, report: Report, path: str, value: object, canvas: Canvas | None, folder: Path | None = None
    ) -> Mask | None:
        """Read run lengths (see `read_rle`), or {"png": ...}: a file in the scene's folder, or its text."""
        if not isinstance(value, Mapping) or "png" not in value:
            return read_rle(report, path, value, canvas)
        check_keys(report, path, value, ("png",))
        path = child(path, "png")
        source = check_text(report, path, value["png"], what="file name")
        content = file_bytes(report, path, source, folder, "PNG", _URIS, MAX_FILE_BYTES) if source else None
        if content is None or canvas is None:
            return None
        try:
            return cls.from_png(content, (canvas.height, canvas.width))
        except SceneError as error:
            for problem in error.problems:
                report.error(path, problem.message, problem.fix)
            return None

    def write(self, canvas: Canvas) -> dict[str, Any]:  # noqa: ARG002
        """Return its size and run lengths."""
        return {"size": list(self.size), "counts": self.counts}

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """Run lengths, or a PNG file."""
        counts = [
            {"type": "string", "description": "Compressed COCO run lengths."},
            {"type": "array", "items": {"type": "integer", "minimum": 0}, "description": "Plain run lengths."},
        ]
        size = {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}
        return {
            "description": "The object's pixels, at the size of the canvas.",
            "oneOf": [
                {
                    "type": "object",
                    "required": ["size", "counts"],
                    "additionalProperties": False,
                    "properties": {
                        "size": size | {"description": "[height, width] of the canvas."},
                        "counts": {"anyOf": counts},
                    },
                },
                {
                    "type": "object",
                    "required": ["png"],
                    "additionalProperties": False,
                    "properties": {"png": {"type": "string", "pattern": r"\S", "description": _PNG}},
                },
            ],
        }

    def coordinates(self, *, published: bool = False) -> npt.NDArray[np.float64]:
        """Return (256, 2), points of outline and inside.

        What is random of them is seeded by the mask itself, so it does not depend on what else there is.
        """
        return mask_points(self.array, np.random.default_rng(zlib.crc32(self.counts.encode())), published=published)

    @property
    def extent(self) -> BoxUnit:
        """The box of its pixels."""
        return mask_box(self.array) or (0.0, 0.0, 1.0, 1.0)

    def crop(self, frame: BoxUnit) -> Mask:
        """Return the pixels inside, one at least on each axis."""
        left, top, right, bottom = pixels_of(frame, self.size)
        return Mask.from_array(self.array[top:bottom, left:right])

    def draw(self, brush: Brush, colour: Colour, paper: Colour, size: tuple[int, int]) -> None:  # noqa: ARG002
        """Fill it, with its outline."""
        brush.region(_rings(self, size), fill=colour, opacity=0.38, width=1.5)


def _check_counts(report: Report, counts: str, size: tuple[int, int]) -> None:
    try:
        area = rle_area(counts, size)
    except ValueError as error:
        report.error("$.counts", str(error), "encode the mask anew for this size (column by column)")
        return
    if area == 0:
        report.error("$.counts", "has no pixel set", "draw the mask, or leave it out")


def _rings(mask: Mask, size: tuple[int, int]) -> list[npt.NDArray[np.float64]]:
    """Return the outlines of a mask (k, 2) on a canvas of (width, height) pixels, without corners on straight lines."""
    bitmap = mask.array
    scale = np.array([size[0] / bitmap.shape[1], size[1] / bitmap.shape[0]])
    rings = []
    for curve in outlines(np.pad(bitmap, 1), at_background=False):
        ring = curve[:-1, ::-1] - 0.5
        before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
        bends = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
        rings.append(ring[bends] * scale)
    return rings


def read_polygons(report: Report, path: str, rings: Sequence[Any], canvas: Canvas) -> Mask | None:
    """Read polygons [[x1, y1, x2, y2, ...], ...] in pixels as the mask of all of them.

    Parts off the canvas are cut off. One that cannot be used is left out.
    """
    size = (canvas.height, canvas.width)
    bitmap = np.zeros(size, dtype=bool)
    usable = not rings
    for index, ring in enumerate(rings):
        where = child(path, index)
        if len(ring) % 2 or not 6 <= len(ring) <= 2 * MAX_POLYGON_POINTS:
            report.fault(where, f"has {len(ring)} numbers", f"a polygon has 3..{MAX_POLYGON_POINTS} corners x, y")
            continue
        usable = True
        bitmap |= fill_rings([np.array(ring, dtype=np.float64).reshape(-1, 2)], size)
    if not bitmap.any():
        if usable:
            report.fault(path, "covers no pixel of the picture", "draw it on the picture")
        return None
    return Mask.from_array(bitmap)


def read_runs(report: Report, path: str, runs: Sequence[int], frame: tuple[int, ...], canvas: Canvas) -> Mask | None:
    """Read run lengths, row by row and unset first, of a rectangle (left, top, width, height) in pixels."""
    left, top, width, height = frame
    fits = 0 <= left and 0 <= top and 0 < width <= canvas.width - left and 0 < height <= canvas.height - top
    if not fits or min(runs, default=0) < 0 or sum(runs) != width * height:
        report.fault(path, f"does not fill its rectangle of {width} x {height} pixels", "export the mask anew")
        return None
    part = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    if not part.any():
        report.fault(path, "has no pixel set", "draw the mask, or leave it out")
        return None
    bitmap = np.zeros((canvas.height, canvas.width), dtype=bool)
    bitmap[top : top + height, left : left + width] = part
    return Mask.from_array(bitmap)


def read_rle(report: Report, path: str, value: object, canvas: Canvas | None) -> Mask | None:
    """Read {"size": [height, width], "counts": string or run lengths}; it has to fill the canvas exactly."""
    data = check_object(report, path, value)
    if data is None:
        return None
    check_keys(report, path, data, ("size", "counts"), ("counts",) if report.lenient else ("size", "counts"))
    counts = data.get("counts")
    if "counts" in data and not isinstance(counts, str) and not is_array(counts):
        fix = "write the compressed string, or an array of run lengths"
        report.error(child(path, "counts"), f"is {kind(counts)}, not a string", fix)
        return None
    if canvas is None or "counts" not in data:
        return None
    size = (canvas.height, canvas.width)
    if "size" in data:
        if not _size_agrees(report, child(path, "size"), data["size"], canvas):
            return None
    elif report.lenient:
        report.warn(child(path, "size"), f"is missing; taken to be [{size[0]}, {size[1]}]")
    else:
        return None
    try:
        return Mask(size, counts if isinstance(counts, str) else compress_runs(rle_runs(counts, size)))  # type: ignore[arg-type]
    except SceneError as error:
        report.absorb(error, path)
    except ValueError as error:
        report.fault(child(path, "counts"), str(error), "encode the mask anew (column by column)")
    return None


def _size_agrees(report: Report, path: str, value: object, canvas: Canvas) -> bool:
    """Whether a mask's [height, width] is that of the canvas; else say how it differs."""
    sides = check_numbers(report, path, value, 2, "[height, width]")
    if sides is None:
        return False
    if sides == [canvas.height, canvas.width]:
        return True
    swapped = sides == [canvas.width, canvas.height]
    message = f"is {numbers_text(sides)}, but the canvas is [height, width] = [{canvas.height}, {canvas.width}]"
    report.fault(path, message, "exchange the two: height comes first" if swapped else "draw the mask on the canvas")
    return False
