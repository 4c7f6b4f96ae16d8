"""Scenes drawn at random from a spec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from instancediffusion.errors import SceneError, SettingsError
from instancediffusion.geometry import box_area, mask_box
from instancediffusion.scene import Box, Instance, Mask, Scene
from instancediffusion.scene.english import with_article
from instancediffusion.scene.limits import MAX_FILE_BYTES

from .spec import ClassSpec, DatasetSpec

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

LAYOUTS, PLACES, ORDERINGS = 60, 40, 12
"""How often a whole layout, the position of one box in it, and a depth order are drawn before it is given up."""


class NoRoomError(SettingsError):
    """A scene for which no layout was found that keeps all bounds of the spec."""


@dataclass(frozen=True)
class DrawnScene:
    """A scene to make a picture of.

    Attributes:
        number: counts from 0.
        scene: what the pipeline is given.
        categories: the class of each instance.
        seed: of the picture's noise.
        background: the phrase, empty if there is none.
    """

    number: int
    scene: Scene
    categories: tuple[str, ...]
    seed: int
    background: str


class SceneSampler:
    """Draws the scenes of a spec; scene k is the same whatever else is drawn.

    Args:
        spec: the spec.
        folder: what paths of shapes are relative to.

    Raises:
        SettingsError: a shape cannot be read.
    """

    def __init__(self, spec: DatasetSpec, folder: Path = Path()) -> None:
        self.spec = spec
        self.shapes = {
            one.name: [_shape(folder / path, f"classes.{one.name}.shapes[{k}]") for k, path in enumerate(one.shapes)]
            for one in spec.classes
        }

    def scene(self, number: int) -> DrawnScene:
        """Draw a scene.

        Raises:
            NoRoomError: no layout keeps all bounds.
            SceneError: a caption is one that no scene may have.
        """
        spec = self.spec
        rng = np.random.Generator(np.random.PCG64([spec.seed, number]))
        classes = self._classes(rng)
        captions = [_caption(rng, one) for one in classes]
        background = _one(rng, spec.backgrounds, "")
        shapes = [_pick(rng, self.shapes[one.name]) for one in classes]
        overlapping = len(classes) > 1 and bool(rng.random() < spec.overlap_share)
        boxes, ranks = self._layout(rng, classes, shapes, overlapping)
        instances = [
            Instance(
                caption,
                box=Box(*map(float, box)) if shape is None else None,
                mask=None if shape is None else self._mask(shape, box),
                z_order=None if ranks is None else ranks[index],
            )
            for index, (caption, shape, box) in enumerate(zip(captions, shapes, boxes, strict=True))
        ]
        default = "{instances}, {background}" if background else "{instances}"
        prompt = _one(rng, spec.prompts, default).format(instances=" and ".join(captions), background=background)
        width, height = spec.size
        scene = Scene(prompt, tuple(instances), width, height, spec.negative_prompt or None)
        names = tuple(one.name for one in classes)
        return DrawnScene(number, scene, names, spec.seed * 2**32 + number, background)

    def _classes(self, rng: np.random.Generator) -> list[ClassSpec]:
        """Choose the class of each instance: the least counts first, then by weight while there is room."""
        spec = self.spec
        counts = {one.name: one.count[0] for one in spec.classes}
        low = max(spec.instances[0], sum(counts.values()))
        high = min(spec.instances[1], sum(one.count[1] for one in spec.classes))
        for _ in range(int(rng.integers(low, high + 1)) - sum(counts.values())):
            open_ones = [one for one in spec.classes if counts[one.name] < one.count[1]]
            weights = np.array([one.weight for one in open_ones])
            counts[open_ones[int(rng.choice(len(open_ones), p=weights / weights.sum()))].name] += 1
        chosen = [one for one in spec.classes for _ in range(counts[one.name])]
        return [chosen[k] for k in rng.permutation(len(chosen))]

    def _layout(
        self, rng: np.random.Generator, classes: Sequence[ClassSpec], shapes: Sequence[Bools | None], overlapping: bool
    ) -> tuple[Floats, list[int] | None]:
        """Boxes (N, 4) in fractions, and the rank of each, 0 the farthest; None if no order is stated."""
        for attempt in range(LAYOUTS):
            # What finds no room at its size is drawn smaller and smaller, within the bounds.
            boxes = self._boxes(rng, classes, shapes, overlapping, shrunk=attempt / LAYOUTS)
            if boxes is None:
                continue
            for _ in range(ORDERINGS if self.spec.order == "random" else 1):
                ranks = self._ranks(rng, classes, boxes)
                if ranks is None or visible_shares(boxes, ranks).min() >= self.spec.min_visible:
                    return boxes, ranks
        asked = f"{len(classes)} instances, {'one pair overlapping' if overlapping else 'none overlapping'}"
        raise NoRoomError(
            f"no layout of {asked}, was found in {LAYOUTS} attempts; allow fewer instances, smaller sizes, wider "
            "regions, more overlap or less visibility"
        )

    def _boxes(
        self,
        rng: np.random.Generator,
        classes: Sequence[ClassSpec],
        shapes: Sequence[Bools | None],
        overlapping: bool,
        shrunk: float,
    ) -> Floats | None:
        most = self.spec.overlap[1] if overlapping else 0.0
        boxes = np.zeros((0, 4))
        for index, (one, shape) in enumerate(zip(classes, shapes, strict=True)):
            for _ in range(PLACES):
                box = self._box(rng, one, shape, shrunk)
                shares = overlap_shares(box[None], boxes)[0]
                meets = index != 1 or not overlapping or shares[0] >= self.spec.overlap[0]
                if meets and (shares <= most).all():
                    boxes = np.concatenate([boxes, box[None]])
                    break
            else:
                return None
        return boxes

    def _box(self, rng: np.random.Generator, one: ClassSpec, shape: Bools | None, shrunk: float) -> Floats:
        """Draw a box (4,): the logarithms of size and aspect evenly, then its position."""
        low, high = one.size
        side = low * (high / low) ** ((1 - shrunk) * rng.random())
        aspect = one.aspect[0] * (one.aspect[1] / one.aspect[0]) ** rng.random()
        if shape is not None:
            aspect = shape.shape[1] / shape.shape[0]
        width, height = self.spec.size
        x0, y0, x1, y1 = one.place
        # Fractions of the canvas: w h = side^2, and (w width) / (h height) = aspect.
        across = min(side * np.sqrt(aspect * height / width), x1 - x0)
        down = min(side * np.sqrt(width / (height * aspect)), y1 - y0)
        left = x0 + (x1 - x0 - across) * rng.random()
        top = y0 + (y1 - y0 - down) * rng.random()
        sides = np.array([width, height] * 2)
        box = np.rint(np.array([left, top, left + across, top + down]) * sides)
        box[2:] = np.minimum(np.maximum(box[2:], box[:2] + 1), sides[2:])
        box[:2] = np.minimum(box[:2], box[2:] - 1)
        return box / sides

    def _ranks(self, rng: np.random.Generator, classes: Sequence[ClassSpec], boxes: Floats) -> list[int] | None:
        if self.spec.order == "none":
            return None
        by: npt.NDArray[np.float64] = rng.random(len(boxes))
        if self.spec.order == "bottom":
            by = boxes[:, 3]
        elif self.spec.order == "listed":
            by = np.array([self._places[one.name] for one in classes], float)
        return [int(rank) for rank in np.argsort(np.argsort(by, kind="stable"), kind="stable")]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {one.name: index for index, one in enumerate(self.spec.classes)}

    def _mask(self, shape: Bools, box: Floats) -> Mask:
        width, height = self.spec.size
        x0, y0, x1, y1 = (int(v) for v in np.rint(box * [width, height, width, height]))
        stamp = Image.fromarray(shape).resize((x1 - x0, y1 - y0), Image.Resampling.NEAREST)
        bitmap = np.zeros((height, width), bool)
        bitmap[y0:y1, x0:x1] = np.asarray(stamp)
        if not bitmap.any():  # thin strokes that fell between the pixels
            bitmap[y0:y1, x0:x1] = True
        return Mask.from_array(bitmap)


def overlap_shares(first: Floats, second: Floats) -> Floats:
    """Fraction of the smaller box that two have in common, (n, m) of (n, 4) and (m, 4) boxes."""
    a, b = first[:, None], second[None]
    shared = box_area(np.concatenate([np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])], -1))
    return shared / np.minimum(box_area(a), box_area(b))


def visible_shares(boxes: Floats, ranks: Sequence[int]) -> Floats:
    """Fraction of each of (N, 4) boxes that nearer boxes (those of larger rank) leave free, exactly."""
    xs, ys = (np.unique(boxes[:, side::2]) for side in (0, 1))
    middles = (xs[:-1] + xs[1:]) / 2, (ys[:-1] + ys[1:]) / 2
    areas = np.diff(ys)[:, None] * np.diff(xs)
    inside = [
        ((middles[1] > y0) & (middles[1] < y1))[:, None] & ((middles[0] > x0) & (middles[0] < x1))
        for x0, y0, x1, y1 in boxes
    ]
    fractions = []
    for index, own in enumerate(inside):
        covered = np.zeros_like(own)
        for other, area in enumerate(inside):
            if ranks[other] > ranks[index]:
                covered |= area
        fractions.append(float(areas[own & ~covered].sum() / areas[own].sum()))
    return np.array(fractions)


def _shape(path: Path, where: str) -> Bools:
    """A silhouette, cut to its box."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise SettingsError(f"{where}: {path} is larger than {MAX_FILE_BYTES >> 20} MB; reduce it")
        with Image.open(path) as picture:
            width, height = picture.size
        bitmap = Mask.from_png(path.read_bytes(), (height, width)).array
    except SceneError as error:
        raise SettingsError(f"{where}: {path}: {error.problems[0]}") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SettingsError(f"{where}: {path} is no PNG that can be read ({str(error)[:80]}); give another") from error
    box = mask_box(bitmap)
    assert box is not None, "a mask has at least one pixel"
    x0, y0, x1, y1 = (round(v * side) for v, side in zip(box, (width, height) * 2, strict=True))
    return bitmap[y0:y1, x0:x1]


def _one(rng: np.random.Generator, texts: Sequence[str], default: str) -> str:
    return texts[int(rng.integers(len(texts)))] if texts else default


def _pick(rng: np.random.Generator, shapes: Sequence[Bools]) -> Bools | None:
    return shapes[int(rng.integers(len(shapes)))] if shapes else None


def _caption(rng: np.random.Generator, one: ClassSpec) -> str:
    words = {key: _one(rng, options, "") for key, options in one.attributes.items()}
    return _one(rng, one.captions, with_article(one.name)).format(name=one.name, **words)
