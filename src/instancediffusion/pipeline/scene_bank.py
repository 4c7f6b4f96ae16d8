"""The conditioning of the UNet on the scenes of a run: computed once, then only looked up."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from instancediffusion.adapter import Grounding
from instancediffusion.choices import SegmentationOrder
from instancediffusion.conditioning import KINDS, InstanceMaskRule, LocationTensors, locations_from_scenes
from instancediffusion.conditioning.text import TextBank
from instancediffusion.conditioning.visibility import reversed_order
from instancediffusion.pipeline.compatibility import check_captions
from instancediffusion.pipeline.framing import WHOLE_CANVAS, BoxUnit, framed
from instancediffusion.sampling import Branch
from instancediffusion.scene import Scene, resize_scene
from instancediffusion.scene.limits import MIN_SIDE_PX
from instancediffusion.scene.locations.kind import pixels_of


@dataclass(frozen=True)
class SceneBank:
    """Contexts and groundings of several scenes, of their per-instance branches, and of nothing at all.

    Attributes:
        texts: every prompt, negative prompt and caption.
        groundings: of one image each: whole scenes, then single instances, then the null grounding.
        alone: for (scene, instance from 1), its context row and its index in `groundings`.
        swapped: for a scene that is needed in the reversed depth order, too, the index of that in `groundings`.
    """

    texts: TextBank
    groundings: tuple[Grounding, ...]
    alone: dict[tuple[int, int], tuple[int, int]]
    swapped: dict[int, int]

    def rows(self, scene: int, prompts: tuple[int, int], branch: Branch) -> tuple[int, int]:
        """The context row, and the index in `groundings`, of a branch of an image of `scene`.

        `prompts` are the context rows of the image's prompt and negative prompt.
        """
        positive, negative = prompts
        if not branch.conditional:
            return negative, len(self.groundings) - 1
        if branch.swapped:
            return positive, self.swapped[scene]
        if branch.trajectory == 0:
            return positive, scene
        # A trajectory beyond the last instance is the scene without any.
        return self.alone.get((scene, branch.trajectory), (positive, len(self.groundings) - 1))


def build_scene_bank(
    scenes: Sequence[Scene],
    alone: Sequence[Mapping[int, BoxUnit]],
    texts: TextBank,
    adapter: Any,
    *,
    instance_mask: InstanceMaskRule | None,
    max_rows: int,
    swapped: Collection[int] = (),
    keep_groups: bool = False,
    segmentation_order: SegmentationOrder = "area",
) -> SceneBank:
    """Compute the groundings of the scenes and of the instances with a branch of their own.

    Args:
        scenes: the scenes.
        alone: for each scene, the instances (from 1) with a branch of their own, each with the part of the canvas it
            runs on, as x0, y0, x1, y1 in fractions.
        texts: encoded captions of all scenes; other texts may stand among them.
        adapter: an `InstanceAdapter`.
        instance_mask: attention mask rule, or None for the adapter's own.
        max_rows: most scenes tokenised in one call, to bound memory (bitmaps are large).
        swapped: the scenes (from 0) that are needed in the reversed depth order, too.
        keep_groups: see `absent_locations` in `GenerationSettings`; the groups of a scene are those of its per-instance
            branches, too.
        segmentation_order: see `locations_from_scenes`.
    """
    check_captions(adapter, texts.pooled.shape[1])
    pairs = [(scene, number) for scene, numbers in enumerate(alone) for number in numbers]
    tokenised = [*scenes, *(_single_instance(scenes[scene], number, alone[scene][number]) for scene, number in pairs)]
    turned = torch.arange(len(tokenised) + len(swapped)) >= len(tokenised)
    tokenised += [scenes[scene] for scene in swapped]
    groups = _groups(scenes, derive=adapter.config.derive_locations) if keep_groups else None
    group_of = [*range(len(scenes)), *(scene for scene, _ in pairs), *swapped]
    groundings: list[Grounding] = []
    for start in range(0, len(tokenised), max_rows):
        rows = slice(start, start + max_rows)
        locations: LocationTensors = adapter.locations(tokenised[rows], segmentation_order=segmentation_order)
        if turned[rows].any():
            locations = reversed_order(locations, turned[rows].to(locations.device))
        captions = torch.zeros(
            len(tokenised[rows]), locations.slots, texts.pooled.shape[1], device=adapter.device, dtype=adapter.dtype
        )
        for row, scene in enumerate(tokenised[rows]):
            for slot, instance in enumerate(scene.instances):
                captions[row, slot] = texts.pooled[texts.row[instance.caption]].to(captions)
        kept = None if groups is None else groups[group_of[rows]].to(adapter.device)
        joined: Grounding = adapter(locations, captions, instance_mask=instance_mask, kept=kept)
        groundings += [joined.single(row) for row in range(joined.batch_size)]
    nothing = LocationTensors.empty(1).to(adapter.device)
    no_caption = torch.zeros(1, 0, texts.pooled.shape[1], device=adapter.device, dtype=adapter.dtype)
    null = adapter(nothing, no_caption, instance_mask=instance_mask)
    indices = {pair: len(scenes) + k for k, pair in enumerate(pairs)}
    rows_of = {(scene, number): texts.row[scenes[scene].instances[number - 1].caption] for scene, number in pairs}
    return SceneBank(
        texts=texts,
        groundings=(*groundings, null),
        alone={pair: (rows_of[pair], index) for pair, index in indices.items()},
        swapped={scene: len(scenes) + len(pairs) + k for k, scene in enumerate(swapped)},
    )


def _single_instance(scene: Scene, number: int, frame: BoxUnit) -> Scene:
    """The scene of one instance, whose caption is the prompt, on its part of the canvas."""
    instance = scene.instances[number - 1]
    if instance.z_order is not None:  # of an order counts only that there is one: nothing else is near or far
        instance = replace(instance, z_order=0)
    if frame == WHOLE_CANVAS:
        return Scene(instance.caption, (instance,), scene.width, scene.height)
    left, top, right, bottom = pixels_of(frame, (scene.height, scene.width))
    wide, tall = (-(-MIN_SIDE_PX // side) for side in (right - left, bottom - top))
    if wide > 1 or tall > 1:  # a part of a small canvas is counted in smaller pixels
        alone = Scene(instance.caption, (instance,), scene.width, scene.height)
        return _single_instance(resize_scene(alone, width=wide * scene.width, height=tall * scene.height), 1, frame)
    return Scene(instance.caption, (framed(instance, frame),), right - left, bottom - top)


def _groups(scenes: Sequence[Scene], *, derive: bool) -> Tensor:
    """(S, 4) bool: whether any instance of a scene has the kind, in the order of `KINDS`."""
    locations = locations_from_scenes(scenes, derive=derive)
    return torch.stack([locations.present[kind].any(1) for kind in KINDS], dim=1)
