"""From scenes to `LocationTensors`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from instancediffusion.choices import SegmentationOrder
from instancediffusion.conditioning.locations import LocationTensors
from instancediffusion.conditioning.visibility import depth_order
from instancediffusion.scene import Box, Instance, Point, Scene


def locations_from_scenes(
    scenes: Sequence[Scene],
    *,
    derive: bool = False,
    published_mask_points: bool = False,
    segmentation_size: int | None = None,
    segmentation_channels: int = 30,
    segmentation_order: SegmentationOrder = "area",
) -> LocationTensors:
    """Tensors of the locations of B scenes.

    Args:
        scenes: one per image; numbers of instances may differ.
        derive: give an instance the simpler kinds its location implies (mask -> box; mask, box or scribble ->
            point; scribble -> box of its extent). For models that, like the published one, were trained with
            point and box nearly always present (spec of the published training: a scribble or mask alone
            practically never occurred).
        published_mask_points: sample mask points as the published code does, with its one-pixel offset.
        segmentation_size: side S of the bitmaps, in pixels; None leaves them out, and then the region of a mask
            instance in the attention mask is that of its box.
        segmentation_channels: channels of the whole-image segmentation input; masks beyond that number keep their mask
            points and their region in the attention mask, but are not drawn into the segmentation input. With 0 the
            bitmaps serve as regions only, and are shrunk so that thin parts stay.
        segmentation_order: which mask gets which channel. `"area"`: in order of falling box area, as in the published
            training; `"published"`: each that of its instance's position in the scene, as in the published inference.

    Returns:
        `LocationTensors` on the CPU. What is random (the choice of interior mask points) is seeded by the mask
        itself, so the result does not depend on the order of instances or scenes.
    """
    slots = max((len(scene.instances) for scene in scenes), default=0)
    ranks, ranked = depth_order(scenes, slots)
    out = replace(LocationTensors.empty(len(scenes), slots), z_order=ranks, z_known=ranked)
    coordinates = {"box": out.boxes, "point": out.points, "scribble": out.scribbles, "mask": out.mask_points}
    bitmaps = None
    if segmentation_size is not None and any(i.mask is not None for s in scenes for i in s.instances):
        bitmaps = torch.zeros(len(scenes), slots, segmentation_size, segmentation_size, dtype=torch.uint8)
    for row, scene in enumerate(scenes):
        out.used[row, : len(scene.instances)] = True
        areas: list[tuple[float, int]] = []
        for slot, given in enumerate(scene.instances):
            instance = _derived(given) if derive else given
            for kind in instance.kinds:
                out.present[kind][row, slot] = True
                numbers = getattr(instance, kind).coordinates(published=published_mask_points)
                coordinates[kind][row, slot] = torch.as_tensor(numbers, dtype=torch.float32)
            if instance.mask is not None:
                x0, y0, x1, y1 = instance.extent
                areas.append(((x1 - x0) * (y1 - y0), slot))
                if bitmaps is not None:
                    bitmaps[row, slot] = _resized(
                        instance.mask.array, bitmaps.shape[-1], keep_thin=segmentation_channels == 0
                    )
        largest_first = sorted(areas, key=lambda area_slot: -area_slot[0])
        for channel, (_, slot) in enumerate(largest_first):
            own = slot if segmentation_order == "published" else channel
            out.segmentation_channel[row, slot] = own if own < segmentation_channels else -1
    if bitmaps is None:
        return out
    return replace(out, segmentations=bitmaps)


def _derived(instance: Instance) -> Instance:
    """The instance with the simpler kinds its own location implies."""
    box, point = instance.box, instance.point
    if box is None and instance.mask is not None:
        box = Box(*instance.mask.extent)
    if instance.box is None and instance.mask is None and instance.scribble is not None:
        x0, y0, x1, y1 = instance.scribble.extent
        # A straight stroke along an axis encloses no area, and so does not give the object's extent.
        box = Box(x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None
    if point is None and instance.kinds:
        x0, y0, x1, y1 = instance.extent
        point = Point((x0 + x1) / 2, (y0 + y1) / 2)
    return Instance(
        caption=instance.caption,
        box=box,
        point=point,
        scribble=instance.scribble,
        mask=instance.mask,
        z_order=instance.z_order,
    )


def _resized(array: np.ndarray, size: int, *, keep_thin: bool) -> torch.Tensor:
    """Resize to (size, size): by nearest neighbour, as the published model sees its segmentations.

    With `keep_thin` a pixel is set where any of those it stands for is.
    """
    bitmap = torch.as_tensor(array)[None, None]
    if keep_thin:
        return torch.nn.functional.adaptive_max_pool2d(bitmap.float(), size)[0, 0].to(torch.uint8)
    return torch.nn.functional.interpolate(bitmap.to(torch.uint8), size=(size, size), mode="nearest")[0, 0]
