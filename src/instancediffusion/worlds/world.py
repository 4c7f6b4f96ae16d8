"""The synthetic world: a sample for every seed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from instancediffusion.errors import SettingsError

from .art import load_art
from .backgrounds import BACKGROUNDS, Background
from .captions import Named, instance_caption, prompt_caption, vocabulary
from .catalogue import CORE, KINDS
from .kinds import ObjectKind
from .layout import Corner, paste, place
from .samples import WorldInstance, WorldSample
from .sprites import SpriteBook, Stamp

Order = Literal["reversed"] | Sequence[int]


@dataclass(frozen=True)
class WorldSpec:
    """What a world's pictures are like.

    Attributes:
        size: side of the square canvas, pixels, 16..1024.
        min_objects: fewest objects in a picture, at least 1.
        max_objects: most objects, at most 16. Every number between is equally likely.
        min_scale: smallest longer side of an object, as a share of the canvas.
        max_scale: largest longer side; with many objects the upper end is lowered so that they fit.
        overlap_share: share of pictures in which at least two objects overlap (single objects counted).
        min_iou: smallest box IoU of a pair that is meant to overlap.
        max_iou: largest box IoU of any pair.
        min_visible: share of every object that stays free, in any depth order.
        repeat_share: how often an object is of the same kind as an earlier one in its picture.
        native_share: how often an object that can be recoloured keeps its own colour.
        objects: names of the kinds that occur; empty means the core of the catalogue.
        backgrounds: names of the backgrounds that occur; empty means all.
    """

    size: int = 128
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

    def __post_init__(self) -> None:
        checks = {
            f"size is {self.size}; give 16 to 1024 pixels": 16 <= self.size <= 1024,
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
        for name in ("overlap_share", "min_visible", "repeat_share", "native_share"):
            value = getattr(self, name)
            checks[f"{name} is {value}; give a share between 0 and 1"] = 0.0 <= value <= 1.0
        wrong = [message for message, good in checks.items() if not good]
        if wrong:
            raise SettingsError("WorldSpec: " + "; ".join(wrong))


@dataclass(frozen=True)
class _Placed:
    """An object before it is painted."""

    named: Named
    stamp: Stamp
    corner: Corner


class World:
    """Pictures of objects on backgrounds, each with exact truth, deterministic in the seed alone.

    Args:
        sprites: the drawings.
        spec: what the pictures are like.
        backgrounds: the backgrounds to choose from.
    """

    def __init__(
        self, sprites: SpriteBook, spec: WorldSpec | None = None, backgrounds: Sequence[Background] = BACKGROUNDS
    ) -> None:
        self.spec = spec or WorldSpec()
        self.sprites = sprites
        self.kinds = _chosen("objects", self.spec.objects, sprites.kinds, tuple(sprites.kinds))
        grounds = {background.name: background for background in backgrounds}
        self.backgrounds = _chosen("backgrounds", self.spec.backgrounds, grounds, tuple(grounds))

    @classmethod
    def load(cls, cache: str | Path | None = None, spec: WorldSpec | None = None) -> "World":
        """Open the built-in world.

        Args:
            cache: where `instancediffusion world build` put the sprites; None is its own default.
            spec: what the pictures are like; without `objects` it takes the core of the catalogue.

        Raises:
            ArtError: the sprites are not built.
        """
        spec = spec or WorldSpec()
        kinds = _chosen("objects", spec.objects, {kind.name: kind for kind in KINDS}, CORE)
        art = load_art(KINDS, cache)
        return cls(SpriteBook(kinds, art), spec)

    def sample(self, seed: int, order: Order | None = None) -> WorldSample:
        """Draw the picture of a seed.

        Args:
            seed: any integer >= 0.
            order: None keeps the seed's own depth order; "reversed" turns it round; a sequence gives the rank of each
                instance (0 is farthest). Everything else stays the same, and captions stay true.

        Raises:
            SettingsError: a negative seed, or an order that is no permutation of the instances' ranks.
        """
        if seed < 0:
            raise SettingsError(f"seed is {seed}; give an integer >= 0")
        scene_rng, ground_rng, words_rng = (np.random.Generator(np.random.PCG64([part, seed])) for part in range(3))
        count = int(scene_rng.integers(self.spec.min_objects, self.spec.max_objects + 1))
        placed = self._arrange(scene_rng, count)
        background = self.backgrounds[int(ground_rng.integers(len(self.backgrounds)))]
        z_order = _ranks([int(z) for z in scene_rng.permutation(len(placed))], order)
        size = (self.spec.size, self.spec.size)

        amodal = [paste(item.stamp.mask, item.corner, size) for item in placed]
        image = background.draw(ground_rng, *size)
        _cast_shadows(image, placed)
        covered = np.zeros(size, bool)
        visible = list(amodal)
        from_back = sorted(range(len(placed)), key=z_order.__getitem__)
        for index in reversed(from_back):
            visible[index] = amodal[index] & ~covered
            covered |= amodal[index]
        for index in from_back:
            _paint(image, placed[index])

        overlapping = [
            (i, j) for i in range(len(placed)) for j in range(i) if _truly_overlap(amodal[i], amodal[j])
        ]
        named = [item.named for item in placed]
        captions = [instance_caption(words_rng, item) for item in named]
        prompt = prompt_caption(words_rng, named, z_order, overlapping, background)
        instances = tuple(
            WorldInstance(
                captions[i], item.kind.name, item.colour, item.facing, z_order[i], _unit_box(placed[i], size), amodal[i], visible[i]
            )
            for i, item in enumerate(named)
        )
        pixels = np.clip(image + 0.5, 0.0, 255.0).astype(np.uint8)
        return WorldSample(pixels, prompt, background.name, instances, seed)

    def vocabulary(self) -> tuple[str, ...]:
        """List every word that captions and prompts of this world can hold, sorted."""
        return vocabulary(self.kinds, self.backgrounds)

    def captions_corpus(self, count: int, seed: int = 0) -> Iterator[str]:
        """Write captions without drawing pictures, to train a tokenizer: `count` of them, prompts and instances mixed."""
        rng = np.random.Generator(np.random.PCG64([3, seed]))
        for number in range(count):
            named = [self._describe(rng, []) for _ in range(int(rng.integers(1, self.spec.max_objects + 1)))]
            if number % 2:
                yield instance_caption(rng, named[0])
                continue
            pairs = [(1, 0)] if len(named) > 1 else []
            ground = self.backgrounds[int(rng.integers(len(self.backgrounds)))]
            yield prompt_caption(rng, named, [int(z) for z in rng.permutation(len(named))], pairs, ground)

    def _describe(self, rng: np.random.Generator, earlier: Sequence[Named]) -> Named:
        """Choose what an object is."""
        repeat, native, which, colour, side = rng.random(5)
        if earlier and repeat < self.spec.repeat_share:
            kind = earlier[int(which * len(earlier))].kind
        else:
            kind = self.kinds[int(which * len(self.kinds))]
        chosen = kind.colour
        if kind.colours and native >= self.spec.native_share:
            chosen = kind.colours[int(colour * len(kind.colours))]
        return Named(kind, chosen, kind.facings[int(side * 2)] if kind.facings else None)

    def _arrange(self, rng: np.random.Generator, count: int) -> list[_Placed]:
        """Choose objects, sizes and places."""
        spec = self.spec
        named: list[Named] = []
        for _ in range(count):
            named.append(self._describe(rng, named))
        numbers = spec.max_objects - spec.min_objects + 1
        several = sum(n > 1 for n in range(spec.min_objects, spec.max_objects + 1)) / numbers
        overlap = count > 1 and bool(rng.random() < spec.overlap_share / max(several, 1e-9))
        top = max(spec.min_scale, spec.max_scale * min(1.0, 1.25 / count**0.5))
        scales = spec.min_scale * (top / spec.min_scale) ** rng.random(count)
        while True:
            stamps = [
                self.sprites.stamp(item.kind.name, item.colour, item.facing, scale * spec.size)
                for item, scale in zip(named, scales, strict=True)
            ]
            for _ in range(12):
                corners = place(
                    rng,
                    [stamp.mask for stamp in stamps],
                    (spec.size, spec.size),
                    overlap=overlap,
                    iou=(spec.min_iou, spec.max_iou),
                    min_visible=spec.min_visible,
                )
                if corners is not None:
                    return [_Placed(*item) for item in zip(named, stamps, corners, strict=True)]
            # No room: draw nearer to one another in size, and smaller, until there is.
            middle = float(np.exp(np.log(scales).mean()))
            scales = np.maximum((scales * middle) ** 0.5 * 0.92, 4.0 / spec.size)


def _chosen(field: str, names: Sequence[str], known: dict[str, object] | dict[str, ObjectKind], default: Sequence[str]) -> tuple:  # type: ignore[type-arg]
    """Look names up, the default ones if none are given."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SettingsError(f"WorldSpec.{field}: unknown {unknown}; known are {', '.join(known)}")
    return tuple(known[name] for name in (names or default))


def _ranks(own: list[int], order: Order | None) -> list[int]:
    """Return the rank of each instance."""
    if order is None:
        return own
    ranks = [len(own) - 1 - z for z in own] if isinstance(order, str) else [int(z) for z in order]
    if (isinstance(order, str) and order != "reversed") or sorted(ranks) != list(range(len(own))):
        raise SettingsError(f"order is {order!r}; give 'reversed' or a permutation of 0..{len(own) - 1}")
    return ranks


def _truly_overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> bool:
    """Say whether two silhouettes overlap enough (3 % of the smaller) for a person to say which is in front."""
    return bool((a & b).sum() >= 0.03 * min(a.sum(), b.sum()))


def _paint(image: NDArray[np.float32], item: _Placed) -> None:
    """Put one object over the picture, in place."""
    (y, x), (height, width) = item.corner, item.stamp.mask.shape
    window = image[y : y + height, x : x + width]
    window *= item.stamp.clear
    window += item.stamp.paint


def _cast_shadows(image: NDArray[np.float32], placed: Sequence[_Placed]) -> None:
    """Darken the ground under what stands, in place. Before any object, so that depth order changes no shadow."""
    height, width = image.shape[:2]
    for item in placed:
        if not item.named.kind.stands:
            continue
        (top, left), (tall, wide) = item.corner, item.stamp.mask.shape
        feet = np.flatnonzero(item.stamp.mask[int(tall * 0.88) :].any(0))
        if not len(feet):
            continue
        centre_x, radius_x = left + (feet[0] + feet[-1] + 1) / 2.0, max((feet[-1] - feet[0] + 1) / 2.0, 2.0) * 1.25 + 1.0
        centre_y, radius_y = top + tall - 0.02 * tall, max(0.055 * min(tall, wide) + 1.0, 1.5) * 1.6
        y0, y1 = max(0, int(centre_y - radius_y)), min(height, int(centre_y + radius_y) + 2)
        x0, x1 = max(0, int(centre_x - radius_x)), min(width, int(centre_x + radius_x) + 2)
        y = ((np.arange(y0, y1) + 0.5 - centre_y) / radius_y) ** 2
        x = ((np.arange(x0, x1) + 0.5 - centre_x) / radius_x) ** 2
        dark = np.clip(1.0 - (y[:, None] + x[None, :]), 0.0, 1.0).astype(np.float32)
        image[y0:y1, x0:x1] *= 1.0 - 0.5 * (dark * (2.0 - dark))[..., None]


def _unit_box(item: _Placed, size: tuple[int, int]) -> NDArray[np.float32]:
    """Return the tight box of the silhouette as fractions of the canvas."""
    (top, left), mask = item.corner, item.stamp.mask
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = size
    return np.array(
        [(left + xs[0]) / width, (top + ys[0]) / height, (left + xs[-1] + 1) / width, (top + ys[-1] + 1) / height], np.float32
    )
