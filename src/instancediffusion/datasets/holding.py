"""What a format can hold, and examples without what it cannot."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from instancediffusion.geometry import mask_box
from instancediffusion.scene import KINDS, Box, Instance, Mask, resize_scene

from .example import Example

FEATURES = {
    "box": "boxes",
    "point": "points",
    "scribble": "scribbles",
    "mask": "masks",
    "several": "several kinds of location of one instance",
    "z_order": "the depth order",
    "prompt": "a prompt that is not the list of captions",
    "negative_prompt": "the negative prompt",
    "looks": "negative captions and references of instances",
    "caption": "captions beside the category",
    "category": "categories beside the caption",
    "visible": "visible masks",
    "exact": "boxes finer than a pixel",
}
"""What formats differ in, and what a warning calls it."""

EVERYTHING = frozenset(FEATURES)
INSTANCES, PICTURES = "instances without a location that it holds", "pictures without an instance"
TEXTS = "line breaks and control characters in texts"


def held(example: Example, holds: frozenset[str], lost: Counter[str]) -> Example | None:
    """The example as a format holds it, on a canvas of the picture's size; what is lost is counted.

    A mask becomes its box where there are boxes alone; of several kinds, where one is held, the mask stays before the
    box, the scribble and the point.

    Returns:
        The example, or None if nothing is left that the format could state.
    """
    scene = example.scene
    if example.image is not None:
        width, height = example.size
        scene = resize_scene(scene, width=width, height=height)
    changed = [_held(given, example.category(index), holds, lost) for index, given in enumerate(scene.instances)]
    kept = [index for index, instance in enumerate(changed) if instance is not None]
    instances = [instance for instance in changed if instance is not None]
    prompt, negative = scene.prompt.strip(), scene.negative_prompt
    if "prompt" not in holds:
        listed = ", ".join(dict.fromkeys(instance.caption for instance in instances))
        if not listed:
            lost[PICTURES] += 1
            return None
        lost[FEATURES["prompt"]] += prompt != listed
        prompt = listed
    if negative is not None and "negative_prompt" not in holds:
        lost[FEATURES["negative_prompt"]] += 1
        negative = None
    categories = tuple(example.category(index).strip() for index in kept)
    captions = tuple(instance.caption for instance in instances)
    if "category" not in holds and categories != captions:
        lost[FEATURES["category"]] += 1
        categories = captions
    visible = tuple(example.visible[index] for index in kept) if example.visible else ()
    if any(visible) and "visible" not in holds:
        lost[FEATURES["visible"]] += 1
        visible = ()
    if any(mask is not None and mask.size != (scene.height, scene.width) for mask in visible):
        visible = _resized(visible, scene.width, scene.height)
    for what in [what for what, count in lost.items() if not count]:
        del lost[what]
    scene = replace(scene, prompt=prompt, negative_prompt=negative, instances=tuple(instances))
    return replace(example, scene=scene, categories=categories, visible=visible)


def _held(given: Instance, category: str, holds: frozenset[str], lost: Counter[str]) -> Instance | None:
    instance = _located(given, holds, lost)
    if instance is None:
        lost[INSTANCES] += 1
        return None
    caption = instance.caption.strip()
    if "caption" not in holds and category.strip() != caption:
        lost[FEATURES["caption"]] += 1
        caption = category.strip()
    if instance.z_order is not None and "z_order" not in holds:
        lost[FEATURES["z_order"]] += 1
        instance = replace(instance, z_order=None)
    if "looks" not in holds and (instance.negative is not None or instance.reference is not None):
        lost[FEATURES["looks"]] += 1
        instance = replace(instance, negative=None, reference=None)
    return replace(instance, caption=caption)


def _located(instance: Instance, holds: frozenset[str], lost: Counter[str]) -> Instance | None:
    """The instance with the kinds of location that are held, or None."""
    locations = {kind: getattr(instance, kind) for kind in instance.kinds}
    if "mask" in locations and "mask" not in holds and "box" in holds:
        lost[FEATURES["mask"]] += 1
        corners = mask_box(locations["mask"].array)
        if "box" not in locations and corners is not None:
            locations["box"] = Box(*corners)
        del locations["mask"]
    for kind in [kind for kind in locations if kind not in holds]:
        lost[FEATURES[kind]] += 1
        del locations[kind]
    if not locations:
        return None
    if len(locations) > 1 and "several" not in holds:
        lost[FEATURES["several"]] += 1
        first = next(kind for kind in ("mask", "box", "scribble", "point") if kind in locations)
        locations = {first: locations[first]}
    found: dict[str, Any] = {kind: locations.get(kind) for kind in KINDS}
    return replace(instance, **found, others=instance.others if holds >= EVERYTHING else ())


def _resized(masks: tuple[Mask | None, ...], width: int, height: int) -> tuple[Mask | None, ...]:
    from instancediffusion.scene import Scene

    found: list[Mask | None] = []
    for mask in masks:
        if mask is None:
            found.append(None)
            continue
        frame = Scene("-", (Instance("-", mask=mask),), mask.size[1], mask.size[0])
        found.append(resize_scene(frame, width=width, height=height).instances[0].mask)
    return tuple(found)
