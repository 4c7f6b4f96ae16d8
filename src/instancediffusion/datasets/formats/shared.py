"""What formats of labelled pictures share: labels as captions, polygons, texts of one line, masks of runs."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from instancediffusion.geometry import mask_box, mask_ring
from instancediffusion.scene import Box, Instance, Mask, NamedScene
from instancediffusion.scene.canvas import Canvas
from instancediffusion.scene.checks import is_array
from instancediffusion.scene.formats.coco.annotations import read_segmentation
from instancediffusion.scene.formats.recognise import recognise
from instancediffusion.scene.limits import MAX_COCO_BYTES, MAX_FILE_BYTES, MAX_POLYGON_POINTS
from instancediffusion.scene.problem_report import Report

from ..example import Example
from ..file_access import read_bounded
from ..holding import TEXTS

CORNERS = f"masks whose outline has more than {MAX_POLYGON_POINTS} corners (written as boxes)"
WHOLE = "boxes finer than a pixel"
_UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


@functools.lru_cache(maxsize=64)
def _kind(path: Path, _changed: int, size: int) -> str:
    if size > MAX_FILE_BYTES:
        with open(path, "rb") as file:
            return "coco" if file.read(64).lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"{") else ""
    return recognise(read_bounded(path, MAX_COCO_BYTES), Report()).format


def kind_of(path: Path) -> str:
    """What a file of annotations is, by its content: a key of `scene.READ`, or empty. Large ones are taken for COCO."""
    try:
        state = path.stat()
        return _kind(path, state.st_mtime_ns, state.st_size) if path.is_file() else ""
    except OSError:
        return ""


def example_of(found: NamedScene, image: Path | bytes | None, file_name: str = "") -> Example:
    """An example of a scene whose captions are its categories."""
    captions = tuple(instance.caption for instance in found.scene.instances)
    return Example(found.scene, image, file_name or found.file_name, found.image_id, captions)


def line_of(text: str) -> str:
    """A text with blanks for characters that a line of text, or XML, cannot hold; `?` if nothing is left."""
    return _UNWRITABLE.sub(" ", text).strip() or "?"


def one_line(example: Example, lost: Counter[str]) -> Example:
    """The example with blanks for characters that a line of text, or XML, cannot hold."""

    def clean(text: str) -> str:
        written = line_of(text)
        lost.update({TEXTS: 1} if written != text else {})
        return written

    scene = example.scene
    instances = tuple(replace(instance, caption=clean(instance.caption)) for instance in scene.instances)
    categories = tuple(map(clean, example.categories))
    listed = ", ".join(dict.fromkeys(instance.caption for instance in instances))
    before = ", ".join(dict.fromkeys(instance.caption for instance in scene.instances))
    prompt = listed if scene.prompt == before else scene.prompt
    return replace(example, scene=replace(scene, prompt=prompt, instances=instances), categories=categories)


def with_places(example: Example, change: Callable[[Instance], Instance]) -> Example:
    """The example with every instance changed."""
    instances = tuple(map(change, example.scene.instances))
    return replace(example, scene=replace(example.scene, instances=instances))


def outlined(example: Example, lost: Counter[str]) -> Example:
    """The example with boxes for masks whose outline is too long for a polygon."""

    def change(instance: Instance) -> Instance:
        if instance.mask is None or len(mask_ring(instance.mask.array)) <= MAX_POLYGON_POINTS:
            return instance
        lost[CORNERS] += 1
        return replace(instance, mask=None, box=box_of_mask(instance.mask))

    return with_places(example, change)


def box_of_mask(mask: Mask) -> Box:
    """The box around the set pixels of a mask."""
    corners = mask_box(mask.array)
    assert corners is not None, "a mask has at least one pixel"
    return Box(*corners)


def pixel_box(box: Box, canvas: Canvas) -> tuple[int, int, int, int]:
    """The nearest box of whole pixels, at least one wide and high."""
    found = []
    for low, high, side in ((box.x0, box.x1, canvas.width), (box.y0, box.y1, canvas.height)):
        first = min(round(low * side), side - 1)
        found.append((first, max(round(high * side), first + 1)))
    (x0, x1), (y0, y1) = found
    return x0, y0, x1, y1


def whole_boxes(example: Example, lost: Counter[str]) -> Example:
    """The example with boxes of whole pixels."""
    canvas = Canvas(example.scene.width, example.scene.height)
    sides = (canvas.width, canvas.height) * 2

    def change(instance: Instance) -> Instance:
        if instance.box is None:
            return instance
        whole = pixel_box(instance.box, canvas)
        moved = any(abs(n - v * side) > 1e-6 for n, v, side in zip(whole, instance.box.xyxy, sides, strict=True))
        lost.update({WHOLE: 1} if moved else {})
        return replace(instance, box=Box(*(n / side for n, side in zip(whole, sides, strict=True))))

    return with_places(example, change)


def read_visible(report: Report, path: str, value: Any, canvas: Canvas) -> Mask | None:
    """The visible part of an instance: run-length code or polygons; what cannot be used is noted and left out."""
    if not value or not (isinstance(value, Mapping) or is_array(value)):
        return None
    part = Report(lenient=True)
    mask = read_segmentation(part, path, value, canvas)
    report.adopt(part)
    return mask


def runs_of(mask: Mask | None) -> dict[str, Any] | None:
    """A mask as COCO's compressed run-length code."""
    return None if mask is None else {"size": list(mask.size), "counts": mask.counts}
