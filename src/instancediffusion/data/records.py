"""Training data: a picture and the annotations of every instance, as plain arrays.

`SceneRecord` is the one exchange type between what makes pictures (the synthetic world, a user's annotations) and
training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
T = TypeVar("T")

SCRIBBLE_POINTS = 20
MASK_POINTS = 256


@dataclass(frozen=True)
class InstanceRecord:
    """One instance; coordinates are fractions of the canvas, (x, y). A kind of location that is not annotated is None.

    Attributes:
        captions: ways to name it, from bare to full; at least one.
        box: (4,) xyxy of the whole object, hidden parts included.
        point: (2,), on its visible part.
        scribble: (20, 2), inside it.
        mask_points: (256, 2), samples of its whole mask; an instance with a mask has a box, too.
        region: (S, S) bool, its whole mask, indexed [y, x]; without a mask, its box, if it has one.
        z_order: rank from the back, 0 = farthest, among the instances whose rank is annotated.
    """

    captions: tuple[str, ...]
    box: Floats | None
    point: Floats | None
    scribble: Floats | None
    mask_points: Floats | None
    region: npt.NDArray[np.bool_]
    z_order: int | None


@dataclass(frozen=True)
class SceneRecord:
    """A picture and its instances.

    Attributes:
        image: (H, W, 3) uint8.
        prompts: texts that are true of the whole picture; at least one.
        instances: in any order.
    """

    image: Bytes
    prompts: tuple[str, ...]
    instances: tuple[InstanceRecord, ...]


def pack(records: Sequence[SceneRecord], slots: int) -> dict[str, npt.NDArray[np.generic]]:
    """Stack the numbers of some scenes into arrays, unused slots zero; masks become bits.

    Returns:
        images (K, H, W, 3) uint8, count (K,) uint8, boxes (K, slots, 4), points (K, slots, 2), scribbles (K, slots,
        20, 2) and mask_points (K, slots, 256, 2) float16 (whose step is 1/16 of a pixel at 128 pixels), regions (K,
        slots, S*S/8) uint8, z_order (K, slots) int16. If anything is not annotated of any instance, also present (K,
        slots, 4) bool, in the order of the fields above, and z_known (K, slots) bool.

    Raises:
        ValueError: a scene has more instances than slots.
    """
    side = next((i.region.shape[0] for r in records for i in r.instances), 8)
    total = len(records)
    if any(len(r.instances) > slots for r in records):
        raise ValueError(
            f"a scene has {max(len(r.instances) for r in records)} instances, more than max_instances = {slots}"
        )
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "images": np.stack([r.image for r in records]),
        "count": np.array([len(r.instances) for r in records], np.uint8),
        "boxes": np.zeros((total, slots, 4), np.float16),
        "points": np.zeros((total, slots, 2), np.float16),
        "scribbles": np.zeros((total, slots, SCRIBBLE_POINTS, 2), np.float16),
        "mask_points": np.zeros((total, slots, MASK_POINTS, 2), np.float16),
        "regions": np.zeros((total, slots, side * side // 8), np.uint8),
        "z_order": np.zeros((total, slots), np.int16),
    }
    for row, record in enumerate(records):
        for slot, instance in enumerate(record.instances):
            for name, value in _locations(instance).items():
                if value is not None:
                    arrays[name][row, slot] = value
            arrays["regions"][row, slot] = np.packbits(instance.region)
            arrays["z_order"][row, slot] = instance.z_order or 0
    if all(_complete(instance) for record in records for instance in record.instances):
        return arrays
    present, z_known = np.zeros((total, slots, 4), np.bool_), np.zeros((total, slots), np.bool_)
    for row, record in enumerate(records):
        for slot, instance in enumerate(record.instances):
            present[row, slot] = [value is not None for value in _locations(instance).values()]
            z_known[row, slot] = instance.z_order is not None
    return {**arrays, "present": present, "z_known": z_known}


def _locations(instance: InstanceRecord) -> dict[str, Floats | None]:
    """The kinds of location by the names of their arrays, in the order of `KINDS`."""
    return {
        "boxes": instance.box,
        "points": instance.point,
        "scribbles": instance.scribble,
        "mask_points": instance.mask_points,
    }


def _complete(instance: InstanceRecord) -> bool:
    return instance.z_order is not None and all(value is not None for value in _locations(instance).values())
