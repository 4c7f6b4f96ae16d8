"""An instance as it lies on a part of the canvas."""

from __future__ import annotations

import dataclasses

from instancediffusion.scene import Instance
from instancediffusion.scene.locations.kind import BoxUnit as BoxUnit

WHOLE_CANVAS: BoxUnit = (0.0, 0.0, 1.0, 1.0)


def framed(instance: Instance, frame: BoxUnit) -> Instance:
    """The instance in frame-relative coordinates; what lies outside the frame is cut off or moved to its border.

    Of kinds of location that were added, what the network is given of them stays.

    Args:
        instance: on the whole canvas.
        frame: the part of the canvas; it holds at least some of the instance.
    """
    cropped = {kind: getattr(instance, kind).crop(frame) for kind in instance.kinds}
    return dataclasses.replace(instance, **cropped, others=())
