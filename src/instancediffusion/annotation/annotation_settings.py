"""What annotating is set to: the models by name, and the thresholds between them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from instancediffusion.errors import SettingsError

ORDERS = ("auto", "annotations", "depth", "none")


@dataclass(frozen=True)
class ModelNames:
    """The model of each stage: a hub id, `ID@REVISION`, or a folder; empty leaves the stage out."""

    tagger: str = "florence-community/Florence-2-base"
    detector: str = "IDEA-Research/grounding-dino-tiny"
    segmenter: str = "facebook/sam2.1-hiera-tiny"
    captioner: str = "florence-community/Florence-2-base"
    depth: str = "depth-anything/Depth-Anything-V2-Small-hf"


@dataclass(frozen=True)
class AnnotationSettings:
    """How pictures are annotated.

    Attributes:
        models: the models by name.
        tags: what to look for in every picture; the tagger is asked instead if empty.
        score: detections below this score are dropped, 0..1; Grounding DINO reports none below 0.05.
        same_tag_iou: of two boxes with one tag that overlap by more (IoU), the better one stays.
        any_tag_iou: the same for boxes with different tags: two names of one object, not two objects that overlap.
        max_instances: the best detections of a picture that are kept, 1..1000.
        mask_leak: pixels of a mask farther from its box than this fraction of the box's sides are cut off.
        mask_agreement: a mask whose own box has a lower IoU with the detector's is dropped; the box stays.
        caption_side: objects whose box is smaller than this squared, in pixels, keep the tag as caption.
        order: where the depth order comes from: `annotations` (amodal and visible masks of labelled pictures),
            `depth` (the depth model), `auto` (the first that gives one), `none`.
        depth_margin: an overlap whose two sides differ in nearness by less than this fraction of the picture's own
            range (5th to 95th percentile) has no order, 0..1.
        visible_share: from annotations, the fraction by which one side must own more of the visible overlap, 0..1.
        batch_size: pictures, and crops, that go through a model at a time.
    """

    models: ModelNames = field(default_factory=ModelNames)
    tags: tuple[str, ...] = ()
    score: float = 0.25
    same_tag_iou: float = 0.5
    any_tag_iou: float = 0.9
    max_instances: int = 100
    mask_leak: float = 0.1
    mask_agreement: float = 0.5
    caption_side: int = 32
    order: str = "auto"
    depth_margin: float = 0.05
    visible_share: float = 0.2
    batch_size: int = 8

    def __post_init__(self) -> None:
        shares = (
            "score",
            "same_tag_iou",
            "any_tag_iou",
            "mask_leak",
            "mask_agreement",
            "depth_margin",
            "visible_share",
        )
        for name in shares:
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value <= 1):
                raise SettingsError(f"{name} = {value!r}: give a number in 0..1")
        for name, low, high in (("max_instances", 1, 1000), ("caption_side", 1, 8192), ("batch_size", 1, 4096)):
            if not low <= getattr(self, name) <= high:
                raise SettingsError(f"{name} = {getattr(self, name)!r}: give an integer in {low}..{high}")
        if self.order not in ORDERS:
            raise SettingsError(f"order = {self.order!r}: choose one of {', '.join(ORDERS)}")
        if any(not tag.strip() for tag in self.tags):
            raise SettingsError("tags: one is empty; name what is to be found")

    def facts(self) -> dict[str, Any]:
        """What results depend on: all but the names of the models, whose pins say more, and the size of batches."""
        return {name: value for name, value in asdict(self).items() if name not in ("models", "batch_size")}
