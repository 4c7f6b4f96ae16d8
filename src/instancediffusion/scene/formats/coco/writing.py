"""Scenes with their pictures to COCO annotations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from instancediffusion.geometry import xyxy_to_xywh

from ...canvas import Canvas, box_to_pixels, extent_to_pixels, point_to_pixels
from ...model import Instance
from ..looks import write_looks
from .coco_scene import CocoScene


def write_coco(
    scenes: Iterable[CocoScene], *, categories: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return an instances file and a captions file as JSON data; `read_coco` gives the same scenes back.

    What COCO has no key for is kept under keys of ours, which other readers skip: `caption`, `point`, `scribble`,
    `z_order`, `negative`, `reference` and `kinds` (the kinds that were stated; `bbox` and `segmentation` are always
    filled in as well as can be) of an annotation, `negative_prompt` of an image.

    Args:
        scenes: the scenes with their pictures, each with its own `image_id`.
        categories: caption -> name of a category; a caption that is not in it is its own category.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    prompts: list[dict[str, Any]] = []
    numbers: dict[str, int] = {}
    for item in scenes:
        scene, canvas = item.scene, Canvas(item.scene.width, item.scene.height)
        image: dict[str, Any] = {"id": item.image_id, "file_name": item.file_name}
        image |= {"width": scene.width, "height": scene.height}
        if scene.negative_prompt is not None:
            image["negative_prompt"] = scene.negative_prompt
        images.append(image)
        prompts.append({"id": len(prompts) + 1, "image_id": item.image_id, "caption": scene.prompt})
        for instance in scene.instances:
            name = (categories or {}).get(instance.caption, instance.caption)
            number = numbers.setdefault(name, len(numbers) + 1)
            head = {"id": len(annotations) + 1, "image_id": item.image_id, "category_id": number, "iscrowd": 0}
            annotations.append(head | write_annotation(instance, canvas))
    named = [{"id": number, "name": name} for name, number in numbers.items()]
    return (
        {"images": images, "annotations": annotations, "categories": named},
        {"images": [dict(image) for image in images], "annotations": prompts},
    )


def write_annotation(instance: Instance, canvas: Canvas) -> dict[str, Any]:
    """Return the locations, the caption and the order of an instance as keys of a COCO annotation."""
    data: dict[str, Any] = {"bbox": _bbox(instance, canvas), "area": 0, "segmentation": []}
    data["area"] = data["bbox"][2] * data["bbox"][3]
    if instance.mask is not None:
        data["area"] = instance.mask.area
        data["segmentation"] = {"size": list(instance.mask.size), "counts": instance.mask.counts}
    data |= {"caption": instance.caption, "kinds": list(instance.kinds)}
    if instance.point is not None:
        data["point"] = point_to_pixels(instance.point.x, instance.point.y, canvas)
    if instance.scribble is not None:
        data["scribble"] = [point_to_pixels(x, y, canvas) for x, y in instance.scribble.points]
    if instance.z_order is not None:
        data["z_order"] = instance.z_order
    return data | write_looks(instance)


def _bbox(instance: Instance, canvas: Canvas) -> list[float]:
    """Return [x, y, width, height]: of the box, else of what else is stated, smallest first to be wrong."""
    if instance.box is not None:
        return extent_to_pixels(box_to_pixels(instance.box, canvas))
    scale = np.array([canvas.width, canvas.height] * 2)
    return [round(float(value), 6) for value in xyxy_to_xywh(np.array(instance.extent) * scale)]
