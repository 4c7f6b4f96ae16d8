"""The scenes of the golden numbers as `LocationTensors`."""

import torch

from instancediffusion.conditioning import KINDS, LocationTensors

# Which kinds each of the published settings drops, in the order box, point, scribble, mask.
SETTINGS = {"box": "0011", "mask": "0010", "point": "1011", "scribble": "0000", "sd15": "0010"}


def locations(golden, name: str, dropped: str = "0000") -> LocationTensors:
    """`name`: "scene" (three instances), "scene/instance/1" (one of them) or "scene/scene30" (all slots used)."""
    used = golden(f"{name}/masks") > 0
    shape = used.shape
    segmentations = None
    bitmaps = {"scene": "scene/segs_first3_uint8", "scene/instance/1": "scene/instance/1/segs0_uint8"}
    if name in bitmaps:
        bitmap = golden(bitmaps[name])
        segmentations = bitmap.reshape(*shape, *bitmap.shape[-2:])
    present = {kind: used & (flag == "0") for kind, flag in zip(KINDS, dropped, strict=True)}
    return LocationTensors(
        boxes=golden(f"{name}/boxes"),
        points=golden(f"{name}/points"),
        scribbles=golden(f"{name}/scribbles").reshape(*shape, 20, 2),
        mask_points=golden(f"{name}/polygons").reshape(*shape, 256, 2),
        used=used,
        present=present,
        z_order=torch.zeros(shape),
        z_known=torch.zeros(shape, dtype=torch.bool),
        segmentations=segmentations,
        segmentation_channel=torch.arange(shape[1]).expand(shape),
    )
