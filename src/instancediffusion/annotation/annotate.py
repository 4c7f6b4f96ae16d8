"""One batch of pictures through the stages."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from instancediffusion.datasets import EVERYTHING, Example
from instancediffusion.datasets.holding import held
from instancediffusion.geometry import mask_box
from instancediffusion.scene import Box, Instance, Mask, Scene
from instancediffusion.scene.checks import check_text
from instancediffusion.scene.problem_report import Report

from .annotation_settings import AnnotationSettings
from .depth_order import Bools, layers, order_by_depth, order_by_visibility
from .protocols import PixelBox, Pixels, Stages
from .selection import clean_tags, fitted_mask, instance_caption, kept_detections, one_line

NO_WORDS = "a picture"
_ORDER_PIXELS = 2_000_000


@dataclass
class _Draft:
    """A picture while it is annotated. Of what `given` says nothing is changed."""

    given: Example
    pixels: Pixels
    instances: list[Instance] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    prompt: str = ""

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[1], self.pixels.shape[0]

    def box(self, index: int) -> PixelBox | None:
        """Where an instance is, in pixels."""
        instance, (width, height) = self.instances[index], self.size
        mask = instance.mask
        corners = instance.box.xyxy if instance.box else mask_box(mask.array) if mask else None
        if corners is None:
            return None
        return corners[0] * width, corners[1] * height, corners[2] * width, corners[3] * height

    def example(self) -> Example:
        width, height = self.size
        listed = ", ".join(dict.fromkeys(instance.caption for instance in self.instances))
        scene = Scene(
            self.prompt or listed or NO_WORDS, tuple(self.instances), width, height, self.given.scene.negative_prompt
        )
        return replace(self.given, scene=scene, categories=tuple(self.tags))


def unlabelled(example: Example) -> bool:
    """Whether a picture has no instances yet, so that they are looked for."""
    return not example.scene.instances


def annotate(examples: Sequence[Example], stages: Stages, settings: AnnotationSettings) -> list[Example]:
    """Annotate a batch of pictures.

    A picture without instances gets tags, boxes, masks, captions and an order. One that has some keeps them and gets
    what they lack: masks of boxes, captions where there are only categories, a prompt where it only lists these, an
    order where none is stated.

    Args:
        examples: the pictures, each with a scene on a canvas of its size.
        stages: the models.
        settings: the thresholds.

    Returns:
        One for each, with a category for each instance.

    Raises:
        SceneError: a picture cannot be read.
        Exception: whatever a model raises; one bad picture fails the batch, see `run.annotate_pictures`.
    """
    drafts = [_draft(example) for example in examples]
    _detect([draft for draft in drafts if unlabelled(draft.given)], stages, settings)
    _segment(drafts, stages, settings)
    _caption(drafts, stages, settings)
    _order(drafts, stages, settings)
    return [draft.example() for draft in drafts]


def _draft(example: Example) -> _Draft:
    pixels = example.pixels()
    if pixels.shape[:2] != (example.scene.height, example.scene.width):
        example = held(example, EVERYTHING, Counter()) or example  # on a canvas of the picture's size
    scene = example.scene
    draft = _Draft(example, pixels, list(scene.instances))
    draft.tags = [example.category(index) for index in range(len(scene.instances))]
    listed = ", ".join(dict.fromkeys(instance.caption for instance in scene.instances))
    if scene.instances and scene.prompt.strip() != listed:
        draft.prompt = scene.prompt
    return draft


def _detect(drafts: Sequence[_Draft], stages: Stages, settings: AnnotationSettings) -> None:
    if not drafts or stages.detector is None:
        return
    pictures = [draft.pixels for draft in drafts]
    if settings.tags:
        tags = [clean_tags(settings.tags)] * len(drafts)
    elif stages.tagger is not None:
        tags = [clean_tags(found) for found in stages.tagger.tags(pictures)]
    else:
        return
    asked = [index for index, found in enumerate(tags) if found]  # a picture of nothing has no boxes
    if not asked:
        return
    detections = stages.detector.detect([pictures[index] for index in asked], [tags[index] for index in asked])
    for index, found in zip(asked, detections, strict=True):
        draft = drafts[index]
        width, height = draft.size
        for one in kept_detections(
            found, draft.size, score=settings.score, same_tag_iou=settings.same_tag_iou,
            any_tag_iou=settings.any_tag_iou, limit=settings.max_instances,
        ):  # fmt: skip
            x0, y0, x1, y1 = one.box
            draft.instances.append(Instance(one.tag, box=Box(x0 / width, y0 / height, x1 / width, y1 / height)))
            draft.tags.append(one.tag)


def _segment(drafts: Sequence[_Draft], stages: Stages, settings: AnnotationSettings) -> None:
    wanted = [
        (draft, [k for k, instance in enumerate(draft.instances) if instance.box and not instance.mask])
        for draft in drafts
    ]
    wanted = [(draft, chosen) for draft, chosen in wanted if chosen]
    if not wanted or stages.segmenter is None:
        return
    boxes = [[box for k in chosen if (box := draft.box(k))] for draft, chosen in wanted]
    found = stages.segmenter.segment([draft.pixels for draft, _ in wanted], boxes)
    for (draft, chosen), prompts, masks in zip(wanted, boxes, found, strict=True):
        for index, box, mask in zip(chosen, prompts, masks, strict=True):
            fitted = fitted_mask(mask, box, leak=settings.mask_leak, agreement=settings.mask_agreement)
            if fitted is None:
                continue
            instance = replace(draft.instances[index], mask=fitted)
            if unlabelled(draft.given):  # the detector's box only predicts the extent that the mask shows
                instance = replace(instance, box=Box(*(mask_box(fitted.array) or ())))
            draft.instances[index] = instance


def _caption(drafts: Sequence[_Draft], stages: Stages, settings: AnnotationSettings) -> None:
    if stages.captioner is None:
        return
    whole = [draft for draft in drafts if not draft.prompt]
    if whole:
        for draft, text in zip(whole, stages.captioner.captions([d.pixels for d in whole], whole=True), strict=True):
            draft.prompt = _text(text)
    crops: list[tuple[_Draft, int, Pixels]] = []
    for draft in drafts:
        for index, instance in enumerate(draft.instances):
            box = draft.box(index)
            if box is None or instance.caption != draft.tags[index]:
                continue
            if (box[2] - box[0]) * (box[3] - box[1]) >= settings.caption_side**2:
                rows = slice(int(np.floor(box[1])), int(np.ceil(box[3])))
                crops.append((draft, index, draft.pixels[rows, int(np.floor(box[0])) : int(np.ceil(box[2]))]))
    for start in range(0, len(crops), settings.batch_size):
        part = crops[start : start + settings.batch_size]
        texts = stages.captioner.captions([crop for _, _, crop in part], whole=False)
        for (draft, index, _), text in zip(part, texts, strict=True):
            caption = instance_caption(draft.tags[index], _text(text))
            draft.instances[index] = replace(draft.instances[index], caption=caption)


def _text(text: str) -> str:
    """What a model wrote, in a line; nothing if it cannot be a caption."""
    return check_text(Report(), "$", one_line(text), what="caption") or ""


def _order(drafts: Sequence[_Draft], stages: Stages, settings: AnnotationSettings) -> None:
    open_ = [
        draft
        for draft in drafts
        if len(draft.instances) > 1 and all(instance.z_order is None for instance in draft.instances)
    ]
    if settings.order in ("auto", "annotations"):
        ordered = [draft for draft in open_ if any(draft.given.visible) and _order_by_masks(draft, settings)]
        open_ = [draft for draft in open_ if not any(draft is other for other in ordered)]
    if settings.order not in ("auto", "depth") or stages.depth is None or not open_:
        return
    maps = stages.depth.nearness([draft.pixels for draft in open_])
    for draft, nearness in zip(open_, maps, strict=True):
        width, height = draft.size
        if nearness.shape != (height, width) or not np.isfinite(nearness).all():
            raise ValueError(f"the depth map has shape {nearness.shape} for ({height}, {width}), or is not finite")
        seen = list(draft.given.visible) or [None] * len(draft.instances)
        step, boxes = _coarse(draft)
        masks = [_bitmap(mask or instance.mask, step) for mask, instance in zip(seen, draft.instances, strict=True)]
        found = order_by_depth(boxes, masks, nearness[::step, ::step], settings.depth_margin)
        _state(draft, layers(len(boxes), found))


def _order_by_masks(draft: _Draft, settings: AnnotationSettings) -> bool:
    """State the order that follows from amodal and visible masks; whether any does."""
    step, boxes = _coarse(draft)
    whole = [_bitmap(instance.mask, step) for instance in draft.instances]
    seen = [_bitmap(mask, step) for mask in draft.given.visible]
    found = layers(len(boxes), order_by_visibility(boxes, whole, seen, settings.visible_share))
    _state(draft, found)
    return any(layer is not None for layer in found)


def _state(draft: _Draft, found: Sequence[int | None]) -> None:
    draft.instances = [replace(instance, z_order=layer) for instance, layer in zip(draft.instances, found, strict=True)]


def _coarse(draft: _Draft) -> tuple[int, list[PixelBox | None]]:
    """The stride of the pixels the order is computed from, and the boxes in these: masks of 100 objects are large."""
    width, height = draft.size
    step = max(1, math.ceil(math.sqrt(width * height / _ORDER_PIXELS)))
    boxes = [draft.box(index) for index in range(len(draft.instances))]
    return step, [None if box is None else (*(value / step for value in box),) for box in boxes]  # type: ignore[misc]


def _bitmap(mask: Mask | None, step: int) -> Bools | None:
    return None if mask is None else np.ascontiguousarray(mask.array[::step, ::step])
