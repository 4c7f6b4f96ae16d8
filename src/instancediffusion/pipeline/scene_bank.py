"""All that the UNet is told about the scenes of a run: computed once, then only looked up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from instancediffusion.adapter import Grounding
from instancediffusion.conditioning import InstanceMaskRule, LocationTensors
from instancediffusion.pipeline.text import TextBank
from instancediffusion.sampling import Branch
from instancediffusion.scene import Scene


@dataclass(frozen=True)
class SceneBank:
    """Contexts and groundings of several scenes, their instances alone, and nothing at all.

    Attributes:
        texts: every prompt, negative prompt and caption.
        groundings: of one image each: whole scenes, then instances alone, then the null grounding.
        prompts: for each scene, the context row of its prompt.
        negatives: for each scene, the context row of its negative prompt.
        alone: for (scene, instance from 1), its context row and its place in `groundings`.
    """

    texts: TextBank
    groundings: tuple[Grounding, ...]
    prompts: tuple[int, ...]
    negatives: tuple[int, ...]
    alone: dict[tuple[int, int], tuple[int, int]]

    def rows(self, scene: int, branch: Branch) -> tuple[int, int]:
        """The context row, and the place in `groundings`, of a branch of an image of `scene`."""
        if not branch.conditional:
            return self.negatives[scene], len(self.groundings) - 1
        if branch.trajectory == 0:
            return self.prompts[scene], scene
        return self.alone[scene, branch.trajectory]


def build_scene_bank(
    scenes: Sequence[Scene],
    negative_prompts: Sequence[str],
    alone: Sequence[Sequence[int]],
    texts: TextBank,
    adapter: Any,
    *,
    instance_mask: InstanceMaskRule | None,
    max_rows: int,
) -> SceneBank:
    """Compute the groundings of the scenes and of the instances that will run alone.

    Args:
        scenes: the scenes.
        negative_prompts: one for each.
        alone: for each scene, the instances (from 1) that run alone.
        texts: encoded prompts, negative prompts and captions of all scenes.
        adapter: an `InstanceAdapter`.
        instance_mask: attention mask rule, or None for the adapter's own.
        max_rows: most scenes tokenised in one call, to bound memory (bitmaps are large).
    """
    pairs = [(scene, number) for scene, numbers in enumerate(alone) for number in numbers]
    singles = [_instance_alone(scenes[scene], number) for scene, number in pairs]
    everything = [*scenes, *singles]
    groundings: list[Grounding] = []
    for start in range(0, len(everything), max_rows):
        joined = _grounding(everything[start : start + max_rows], texts, adapter, instance_mask)
        groundings += [joined.select([row]) for row in range(joined.batch_size)]
    nothing = LocationTensors.empty(1).to(adapter.device)
    no_caption = torch.zeros(1, 0, texts.pooled.shape[1], device=adapter.device, dtype=adapter.dtype)
    null = adapter(nothing, no_caption, instance_mask=instance_mask)
    captions = [scenes[scene].instances[number - 1].caption for scene, number in pairs]
    return SceneBank(
        texts=texts,
        groundings=(*groundings, null),
        prompts=tuple(texts.row[scene.prompt] for scene in scenes),
        negatives=tuple(texts.row[text] for text in negative_prompts),
        alone={pair: (texts.row[c], len(scenes) + k) for k, (pair, c) in enumerate(zip(pairs, captions, strict=True))},
    )


def _instance_alone(scene: Scene, number: int) -> Scene:
    """The scene of one instance, whose caption is the prompt."""
    instance = scene.instances[number - 1]
    return Scene(instance.caption, (instance,), scene.width, scene.height)


def _grounding(
    scenes: Sequence[Scene], texts: TextBank, adapter: Any, instance_mask: InstanceMaskRule | None
) -> Grounding:
    locations: LocationTensors = adapter.locations(scenes)
    captions = torch.zeros(
        len(scenes), locations.slots, texts.pooled.shape[1], device=adapter.device, dtype=adapter.dtype
    )
    for row, scene in enumerate(scenes):
        for slot, instance in enumerate(scene.instances):
            captions[row, slot] = texts.pooled[texts.row[instance.caption]].to(captions)
    grounding: Grounding = adapter(locations, captions, instance_mask=instance_mask)
    return grounding
