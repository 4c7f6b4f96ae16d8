"""What ComfyUI's sockets carry, and scenes: boxes, elements, masks and layers in, masks out. No ComfyUI, no torch.

Arrays are numpy here; `nodes` turns tensors into them. Lengths are pixels of the scene's canvas, x to the right.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from instancediffusion.geometry import mask_box
from instancediffusion.scene import Box, Instance, Mask, Scene

ORDERS = ("last in front", "first in front", "no order")
"""What the order of a list says of the depth order; the core's editor asks for the background first."""


@dataclass(frozen=True)
class Part:
    """One object on its way into a scene.

    Attributes:
        caption: what it is; empty if its socket does not say.
        box: corners (x0, y0, x1, y1) in pixels, or None.
        mask: bitmap of the canvas's size, (height, width) bool, or None.
        z_order: its layer, or None.
    """

    caption: str = ""
    box: tuple[float, float, float, float] | None = None
    mask: npt.NDArray[np.bool_] | None = None
    z_order: int | None = None


def parts_of_boxes(value: Any) -> list[Part]:
    """Read a BOUNDING_BOX: one box, a list, or a list of frames of which the first is taken.

    Boxes are {x, y, width, height} in pixels, with `metadata` that may hold `name`, `desc` and `z_index`.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(value, str):
        value = json.loads(value) if value.strip() else []
    if value is None:
        return []
    frame = [value] if isinstance(value, Mapping) else value
    if isinstance(frame, Sequence) and len(frame) and isinstance(frame[0], Sequence) and not isinstance(frame[0], str):
        frame = frame[0]
    if not isinstance(frame, Sequence):
        raise ValueError(f"bboxes: {type(value).__name__} is no list of boxes; connect a BOUNDING_BOX")
    return [_part_of_box(item, index) for index, item in enumerate(frame)]


def _part_of_box(item: Any, index: int) -> Part:
    sides = [item.get(key) for key in ("x", "y", "width", "height")] if isinstance(item, Mapping) else [None]
    if not all(isinstance(side, int | float) and math.isfinite(side) for side in sides):
        raise ValueError(f"bboxes[{index}]: {str(item)[:60]} is no box; it needs x, y, width and height in pixels")
    x, y, width, height = (float(side) for side in sides)
    about = item.get("metadata") if isinstance(item.get("metadata"), Mapping) else {}
    layer = about.get("z_index")
    return Part(
        _caption(about),
        (min(x, x + width), min(y, y + height), max(x, x + width), max(y, y + height)),
        z_order=layer if isinstance(layer, int) and not isinstance(layer, bool) else None,
    )


def parts_of_elements(value: Any, width: int, height: int) -> list[Part]:
    """Read an ARRAY of elements {type, desc, text, bbox}, whose boxes are [y0, x0, y1, x1] in thousandths.

    Raises:
        ValueError: an element has no such box.
    """
    found = []
    for index, item in enumerate(value or ()):
        box = item.get("bbox") if isinstance(item, Mapping) else None
        if not isinstance(box, Sequence) or len(box) != 4 or not all(isinstance(v, int | float) for v in box):
            raise ValueError(f"elements[{index}]: has no bbox [y0, x0, y1, x1] in thousandths")
        y0, x0, y1, x1 = (float(v) / 1000 for v in box)
        corners = (min(x0, x1) * width, min(y0, y1) * height, max(x0, x1) * width, max(y0, y1) * height)
        found.append(Part(_caption(item), corners))
    return found


def _caption(about: Mapping[str, Any]) -> str:
    caption = next((about[key].strip() for key in ("desc", "name", "caption", "label")
                    if isinstance(about.get(key), str) and about[key].strip()), "")  # fmt: skip
    written = about.get("text")
    if about.get("type") == "text" and isinstance(written, str) and written.strip():
        return f'the text "{written.strip()}"' + (f", {caption}" if caption else "")
    return caption


def parts_of_masks(masks: npt.NDArray[np.floating[Any]], width: int, height: int) -> list[Part]:
    """Read a MASK (N, h, w) in 0..1, 1 where the object is; other sizes are resampled to the canvas."""
    batch = masks[None] if masks.ndim == 2 else masks
    return [Part(mask=_resampled(mask, width, height)) for mask in batch]


def parts_of_layers(stack: Mapping[str, Any], width: int, height: int) -> list[Part]:
    """Read LAYERS: `canvas` (width, height) and `layers` with image, x, y, z_index, name and a mask, 1 = transparent.

    The layer that fills the canvas and lies lowest is the background, and no object. Arrays are (1, h, w[, c]).

    Raises:
        ValueError: it is no stack of layers.
    """
    layers = stack.get("layers") if isinstance(stack, Mapping) else None
    if not isinstance(layers, Sequence):
        raise ValueError("layers: is no stack of layers; connect LAYERS")
    canvas = stack.get("canvas") or (width, height)
    scale = (width / float(canvas[0]), height / float(canvas[1]))
    ordered = sorted(enumerate(layers), key=lambda pair: (pair[1].get("z_index", pair[0]), pair[0]))
    found: dict[int, Part] = {}
    for rank, (index, layer) in enumerate(ordered):
        image = np.asarray(layer["image"])
        h, w = image.shape[-3:-1]
        opaque = (
            np.ones((h, w)) if layer.get("mask") is None else 1 - np.asarray(layer["mask"], np.float64).reshape(h, w)
        )
        if image.shape[-1] == 4:
            opaque = opaque * image.reshape(h, w, 4)[..., 3]
        x, y = float(layer.get("x", 0)) * scale[0], float(layer.get("y", 0)) * scale[1]
        bitmap = np.zeros((height, width), dtype=bool)
        part = _resampled(opaque, max(1, round(w * scale[0])), max(1, round(h * scale[1])))
        _paste(bitmap, part, round(x), round(y))
        if not bitmap.any() or (rank == 0 and bitmap.all()):
            continue
        name = layer.get("name")
        found[index] = Part(name.strip() if isinstance(name, str) else "", mask=bitmap, z_order=rank)
    return [found[index] for index in sorted(found)]


def _resampled(mask: npt.NDArray[Any], width: int, height: int) -> npt.NDArray[np.bool_]:
    """A mask in 0..1 at another size, by nearest neighbour."""
    rows = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(int)
    return np.asarray(mask[rows[:, None], columns] >= 0.5)


def _paste(canvas: npt.NDArray[np.bool_], part: npt.NDArray[np.bool_], x: int, y: int) -> None:
    height, width = canvas.shape
    x0, y0 = max(x, 0), max(y, 0)
    x1, y1 = min(x + part.shape[1], width), min(y + part.shape[0], height)
    if x0 < x1 and y0 < y1:
        canvas[y0:y1, x0:x1] |= part[y0 - y : y1 - y, x0 - x : x1 - x]


def joined(boxes: Sequence[Part], elements: Sequence[Part], masks: Sequence[Part]) -> list[Part]:
    """Objects that several sockets describe, one by one: the first box, the first element and the first mask are one.

    Raises:
        ValueError: the sockets hold different numbers of objects.
    """
    given = {"bboxes": boxes, "elements": elements, "masks": masks}
    counts = {name: len(parts) for name, parts in given.items() if parts}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise ValueError(f"{listed}: connect as many of each, or only one of them")
    found = []
    for index in range(max(counts.values(), default=0)):
        part = Part()
        for parts in (masks, elements, boxes):  # pixels of a box are finer than an element's thousandths
            if parts:
                other = parts[index]
                part = Part(
                    other.caption or part.caption,
                    other.box if other.box is not None else part.box,
                    other.mask if other.mask is not None else part.mask,
                    other.z_order if other.z_order is not None else part.z_order,
                )
        found.append(part)
    return found


def scene_of(
    prompt: str, parts: Sequence[Part], captions: Sequence[str], width: int, height: int, order: str, negative: str = ""
) -> Scene:
    """Make a scene.

    Args:
        prompt: the whole picture in words.
        parts: its objects.
        captions: what they are, one by one; an empty one leaves what the object's socket says.
        width: of the canvas in pixels.
        height: of the canvas in pixels.
        order: one of `ORDERS`; says the depth order where no object states its layer.
        negative: what the picture is not to show.

    Raises:
        ValueError: an object has no caption or no location on the canvas, or there are more captions than objects.
        SceneError: the prompt or canvas cannot be used.
    """
    if len(captions) > len(parts):
        raise ValueError(f"captions: {len(captions)} lines for {len(parts)} objects; write one line for each")
    lines = [*captions, *[""] * (len(parts) - len(captions))]
    named = [replace(part, caption=line.strip() or part.caption) for part, line in zip(parts, lines, strict=True)]
    stated = any(part.z_order is not None for part in named)
    instances = []
    for index, part in enumerate(named):
        layer = part.z_order
        if not stated and order != "no order":
            layer = index if order == "last in front" else len(named) - 1 - index
        instances.append(_instance(part, index, layer, width, height))
    text = prompt.strip() or ", ".join(dict.fromkeys(instance.caption for instance in instances))
    return Scene(text, tuple(instances), width, height, negative.strip() or None)


def _instance(part: Part, index: int, layer: int | None, width: int, height: int) -> Instance:
    if not part.caption:
        raise ValueError(f"object {index + 1} has no caption; write one line for each into `captions`")
    box = None
    if part.box is not None:
        x0, x1 = (min(max(value / width, 0.0), 1.0) for value in (part.box[0], part.box[2]))
        y0, y1 = (min(max(value / height, 0.0), 1.0) for value in (part.box[1], part.box[3]))
        box = Box(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None
    mask = Mask.from_array(part.mask) if part.mask is not None and part.mask.any() else None
    if box is None and mask is None:
        canvas = f"{width} x {height} pixels"
        raise ValueError(f"object {index + 1} ({part.caption}) has no location on the canvas of {canvas}")
    return Instance(part.caption, box=box, mask=mask, z_order=layer)


def instance_masks(scene: Scene, size: tuple[int, int], *, visible: bool) -> npt.NDArray[np.float32]:
    """Where each instance was asked for, (N, height, width) in 0 or 1, in the order of the scene.

    Args:
        scene: the scene.
        size: (height, width) of the masks in pixels.
        visible: leave out what instances of nearer layers cover.
    """
    height, width = size
    found = np.zeros((len(scene.instances), height, width), dtype=np.float32)
    for index, instance in enumerate(scene.instances):
        found[index] = _region(instance, width, height)
    if visible:
        whole = found.copy()
        for index, instance in enumerate(scene.instances):
            for other, nearer in enumerate(scene.instances):
                if instance.z_order is not None and nearer.z_order is not None and nearer.z_order > instance.z_order:
                    found[index] *= 1 - whole[other]
    return found


def _region(instance: Instance, width: int, height: int) -> npt.NDArray[np.bool_]:
    """The pixels of an instance: of its mask, else its box, else a small disc or stroke."""
    if instance.mask is not None:
        return _resampled(instance.mask.array.astype(np.float64), width, height)
    rows, columns = np.mgrid[:height, :width] + 0.5
    if instance.box is not None:
        x0, y0, x1, y1 = instance.box.xyxy
        return np.asarray(
            (columns >= x0 * width) & (columns <= x1 * width) & (rows >= y0 * height) & (rows <= y1 * height)
        )
    points = instance.scribble.points if instance.scribble is not None else ()
    if instance.point is not None and not points:
        points = ((instance.point.x, instance.point.y),)
    radius, region = 0.03 * max(width, height), np.zeros((height, width), dtype=bool)
    pairs = list(itertools.pairwise(points)) or [(points[0], points[0])]
    for (ax, ay), (bx, by) in pairs:
        start, line = np.array([ax * width, ay * height]), np.array([(bx - ax) * width, (by - ay) * height])
        away = np.stack([columns - start[0], rows - start[1]])
        share = np.clip(np.tensordot(line, away, 1) / max(float(line @ line), 1e-9), 0, 1)
        region |= np.hypot(away[0] - share * line[0], away[1] - share * line[1]) <= radius
    return region


def boxes_of(scene: Scene) -> list[list[dict[str, Any]]]:
    """The scene's objects as a BOUNDING_BOX of one frame, in pixels of its canvas, captions and layers as metadata."""
    frame = []
    for instance in scene.instances:
        if instance.box is not None:
            x0, y0, x1, y1 = instance.box.xyxy
        else:
            x0, y0, x1, y1 = mask_box(_region(instance, scene.width, scene.height)) or (0.0, 0.0, 1.0, 1.0)
        about: dict[str, Any] = {"name": instance.caption, "desc": instance.caption}
        if instance.z_order is not None:
            about["z_index"] = instance.z_order
        frame.append(
            {
                "x": round(x0 * scene.width),
                "y": round(y0 * scene.height),
                "width": round((x1 - x0) * scene.width),
                "height": round((y1 - y0) * scene.height),
                "metadata": about,
            }
        )
    return [frame]
