"""What the pictures of a world are like: the options of one world, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from instancediffusion.errors import SettingsError

from .art_sets import ART_SETS


@dataclass(frozen=True)
class WorldSpec:
    """What a world's pictures are like.

    Attributes:
        size: side of the square canvas, pixels, 16..1024; of another shape, that of the square of the same area, which
            scales are fractions of.
        aspect: width of the canvas divided by its height, 0.25..4; sides are multiples of 8 where it is not 1.
        min_objects: fewest objects in a picture, at least 1.
        max_objects: most objects, at most 16. Every number between is equally likely.
        min_scale: smallest longer side of an object, as a fraction of the canvas.
        max_scale: largest longer side; with many objects the upper end is lowered so that they fit.
        overlap_share: fraction of pictures in which at least two objects overlap (single objects counted).
        min_iou: smallest box IoU of a pair that is meant to overlap.
        max_iou: largest box IoU of any pair.
        min_visible: fraction of every object that stays free, in any depth order.
        repeat_share: how often an object is of the same class as an earlier one in its picture.
        native_share: how often an object that can be recoloured keeps its own colour.
        objects: names of the object classes that occur; empty means the core of the catalogue.
        backgrounds: names of the backgrounds that occur; empty means all.
        part_share: how often an object with annotated parts shows a part as an instance of its own, 0..1, beside the
            objects counted by `max_objects`; the picture is the same without them.
        max_parts: most parts in a picture, 1..16.
        further_part: probability of one more part of the same object after each that it shows.
        art_sets: names of the sets whose sprites occur, out of `ART_SETS`; empty means all. ("noto",) alone has one
            sprite of each class.
        state_turned: captions of an object that is drawn the other way round than its sprite always state its
            orientation, so that a caption without one means one side. By default many leave it out.
    """

    size: int = 128
    aspect: float = 1.0
    min_objects: int = 1
    max_objects: int = 4
    min_scale: float = 0.22
    max_scale: float = 0.75
    overlap_share: float = 0.5
    min_iou: float = 0.05
    max_iou: float = 0.5
    min_visible: float = 0.45
    repeat_share: float = 0.12
    native_share: float = 0.3
    objects: tuple[str, ...] = ()
    backgrounds: tuple[str, ...] = ()
    art_sets: tuple[str, ...] = ()
    part_share: float = 0.15
    max_parts: int = 2
    further_part: float = 1 / 3
    state_turned: bool = False

    def __post_init__(self) -> None:
        checks = {
            f"size is {self.size}; give 16 to 1024 pixels": 16 <= self.size <= 1024,
            f"aspect is {self.aspect}; give 0.25 to 4 (width divided by height)": 0.25 <= self.aspect <= 4.0,
            f"min_objects..max_objects is {self.min_objects}..{self.max_objects}; give 1 <= min <= max <= 16": (
                1 <= self.min_objects <= self.max_objects <= 16
            ),
            f"min_scale..max_scale is {self.min_scale}..{self.max_scale}; give 0 < min <= max <= 1": (
                0.0 < self.min_scale <= self.max_scale <= 1.0
            ),
            f"min_iou..max_iou is {self.min_iou}..{self.max_iou}; give 0 < min < max <= 1": (
                0.0 < self.min_iou < self.max_iou <= 1.0
            ),
        }
        checks[f"max_parts is {self.max_parts}; give 1 to 16"] = 1 <= self.max_parts <= 16
        for name in ("overlap_share", "min_visible", "repeat_share", "native_share", "part_share", "further_part"):
            value = getattr(self, name)
            checks[f"{name} is {value}; give a fraction between 0 and 1"] = 0.0 <= value <= 1.0
        unknown = [name for name in self.art_sets if name not in ART_SETS]
        checks[f"art_sets names {unknown}; known are {', '.join(ART_SETS)}"] = not unknown
        wrong = [message for message, good in checks.items() if not good]
        if wrong:
            raise SettingsError("WorldSpec: " + "; ".join(wrong))

    @property
    def canvas(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        if self.aspect == 1:
            return self.size, self.size
        height, width = (8 * max(1, round(self.size * self.aspect**power / 8)) for power in (-0.5, 0.5))
        return height, width

    @classmethod
    def from_options(cls, options: Mapping[str, Any], **more: Any) -> WorldSpec:
        """Read options as a recipe states them, whose lists are tuples here; `more` wins over them."""
        read: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in {**options, **more}.items()}
        return cls(**read)
