"""The synthetic world: a sample for every seed."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from instancediffusion.errors import SettingsError
from instancediffusion.scene.english import part_word

from .art import load_art
from .art_sets import ART_SETS
from .backgrounds import BACKGROUNDS, Background
from .captions import Named, instance_caption, prompt_caption, vocabulary
from .catalogue import CORE, KINDS
from .kinds import ObjectKind
from .layout import paste, place
from .painting import Placed, paint_layers
from .part_instances import Part, choose_parts, part_captions, ranks_with_parts
from .samples import WorldInstance, WorldSample
from .sprites import SpriteBook
from .wordings import exact_wordings, instance_wordings
from .world_spec import WorldSpec

Order = Literal["reversed"] | Sequence[int]
_T = TypeVar("_T")


class World:
    """Pictures of objects on backgrounds with exact ground truth, deterministic in the seed alone.

    Args:
        sprites: the sprites of its classes.
        spec: what the pictures are like.
        backgrounds: the backgrounds to choose from.
    """

    def __init__(
        self, sprites: SpriteBook, spec: WorldSpec | None = None, backgrounds: Sequence[Background] = BACKGROUNDS
    ) -> None:
        self.spec = spec or WorldSpec()
        self.sprites = sprites
        self.kinds = _kinds(self.spec, sprites.kinds, tuple(sprites.kinds))
        grounds = {background.name: background for background in backgrounds}
        self.backgrounds = _chosen("backgrounds", self.spec.backgrounds, grounds, tuple(grounds))
        self._drawings = {kind.name: kind.drawings for kind in self.kinds}

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
        kinds = _kinds(spec, {kind.name: kind for kind in KINDS}, CORE)
        art = load_art(KINDS, cache, kinds)
        return cls(SpriteBook(kinds, art), spec)

    def sample(self, seed: int, order: Order | None = None) -> WorldSample:
        """Draw the picture of a seed.

        Args:
            seed: any integer >= 0.
            order: None keeps the seed's own depth order; "reversed" turns that of the objects round; a sequence gives
                the rank of each instance (0 is farthest), parts included. A part stays right in front of its object.
                Everything else stays the same, and captions stay true.

        Raises:
            SettingsError: a negative seed, or an order that is no permutation of the instances' ranks, or has a part
                elsewhere than right in front of its object.
        """
        if seed < 0:
            raise SettingsError(f"seed is {seed}; give an integer >= 0")
        scene_rng, ground_rng, words_rng = (np.random.Generator(np.random.PCG64([part, seed])) for part in range(3))
        looks_rng, more_rng, parts_rng, exact_rng = (
            np.random.Generator(np.random.PCG64([part, seed])) for part in (4, 5, 7, 8)
        )
        count = int(scene_rng.integers(self.spec.min_objects, self.spec.max_objects + 1))
        placed = self._arrange(scene_rng, looks_rng, count)
        background = self.backgrounds[int(ground_rng.integers(len(self.backgrounds)))]
        size = self.spec.canvas
        boxes = [item.box(size) for item in placed]
        amodal = [paste(item.stamp.mask, item.corner, size) for item in placed]
        parts = choose_parts(
            parts_rng,
            placed,
            boxes,
            amodal,
            share=self.spec.part_share,
            most=self.spec.max_parts,
            further=self.spec.further_part,
            min_visible=self.spec.min_visible,
        )
        z_order, ranks = _ranks([int(z) for z in scene_rng.permutation(len(placed))], parts, order)

        image = background.draw(ground_rng, *size)
        _, visible = paint_layers(image, placed, z_order)
        overlapping = [(i, j) for i in range(len(placed)) for j in range(i) if _truly_overlap(amodal[i], amodal[j])]
        named = [item.named for item in placed]
        captions = [instance_caption(words_rng, item) for item in named]
        facts = (named, z_order, overlapping, background, boxes)
        prompt = prompt_caption(words_rng, *facts)
        wordings = [
            (*instance_wordings(more_rng, item, box), *exact_wordings(exact_rng, item, box))
            for item, box in zip(named, boxes, strict=True)
        ]
        prompts = (prompt, *(prompt_caption(more_rng, *facts, everyday=True) for _ in range(2)))
        instances = tuple(
            WorldInstance(
                captions[i],
                item.kind.name,
                item.colour,
                item.facing,
                ranks[i],
                boxes[i],
                amodal[i],
                visible[i],
                placed[i].parts(boxes[i], size),
                item.look.icon,
                item.look.style,
                (captions[i], *wordings[i]),
            )
            for i, item in enumerate(named)
        )
        instances += tuple(
            _part_instance(parts_rng, part, named[part.of], visible[part.of], rank)
            for part, rank in zip(parts, ranks[len(named) :], strict=True)
        )
        pixels = np.clip(image + 0.5, 0.0, 255.0).astype(np.uint8)
        return WorldSample(pixels, prompt, background.name, instances, seed, prompts)

    def vocabulary(self) -> tuple[str, ...]:
        """List every word that captions and prompts of this world can contain, sorted."""
        return vocabulary(self.kinds, self.backgrounds)

    def captions_corpus(self, count: int, seed: int = 0) -> Iterator[str]:
        """Write `count` captions without pictures, to train a tokenizer: of prompts and of instances in turn."""
        rng, looks = (np.random.Generator(np.random.PCG64([part, seed])) for part in (3, 6))
        for number in range(count):
            named = [self._describe(rng, looks, []) for _ in range(int(rng.integers(1, self.spec.max_objects + 1)))]
            boxes = [np.sort(rng.random((2, 2)), 0).astype(np.float32).ravel() for _ in named]
            everyday, parts = number % 4 >= 2, list(named[0].look.parts)
            if number % 8 == 3 and parts:
                yield part_captions(rng, named[0], parts[int(rng.integers(len(parts)))])[int(rng.integers(4))]
                continue
            if number % 2:
                yield instance_wordings(rng, named[0], boxes[0])[2] if everyday else instance_caption(rng, named[0])
                continue
            pairs = [(1, 0)] if len(named) > 1 else []
            ground = self.backgrounds[int(rng.integers(len(self.backgrounds)))]
            ranks = [int(z) for z in rng.permutation(len(named))]
            yield prompt_caption(rng, named, ranks, pairs, ground, boxes, everyday=everyday)

    def _describe(self, rng: np.random.Generator, looks: np.random.Generator, earlier: Sequence[Named]) -> Named:
        """Choose the class of an object, and with a separate generator its sprite."""
        repeat, native, which, colour, side = rng.random(5)
        if earlier and repeat < self.spec.repeat_share:
            kind = earlier[int(which * len(earlier))].kind
        else:
            kind = self.kinds[int(which * len(self.kinds))]
        drawings = self._drawings[kind.name]
        look = drawings[int(looks.integers(len(drawings)))]
        chosen = look.colour
        if look.colours and native >= self.spec.native_share:
            chosen = look.colours[int(colour * len(look.colours))]
        facing = look.facings[int(side * 2)] if look.facings else None
        return Named(kind, chosen, facing, look, self.spec.state_turned and facing != look.facing)

    def _arrange(self, rng: np.random.Generator, looks: np.random.Generator, count: int) -> list[Placed]:
        """Choose objects, sizes and locations."""
        spec = self.spec
        named: list[Named] = []
        for _ in range(count):
            named.append(self._describe(rng, looks, named))
        numbers = spec.max_objects - spec.min_objects + 1
        several = sum(n > 1 for n in range(spec.min_objects, spec.max_objects + 1)) / numbers
        overlap = count > 1 and bool(rng.random() < spec.overlap_share / max(several, 1e-9))
        largest = min(spec.max_scale, min(spec.canvas) / spec.size)  # that fits whichever way it stands
        top = max(spec.min_scale, largest * min(1.0, 1.25 / count**0.5))
        scales = spec.min_scale * (top / spec.min_scale) ** rng.random(count)
        while True:
            stamps = [
                self.sprites.stamp(item.kind.name, item.colour, item.facing, scale * spec.size, item.look)
                for item, scale in zip(named, scales, strict=True)
            ]
            for _ in range(12):
                corners = place(
                    rng,
                    [stamp.mask for stamp in stamps],
                    spec.canvas,
                    overlap=overlap,
                    iou=(spec.min_iou, spec.max_iou),
                    min_visible=spec.min_visible,
                )
                if corners is not None:
                    return [Placed(*item) for item in zip(named, stamps, corners, strict=True)]
            # No room: make the sizes more alike, and smaller, until there is.
            middle = float(np.exp(np.log(scales).mean()))
            scales = np.maximum((scales * middle) ** 0.5 * 0.92, 4.0 / spec.size)


def _chosen(field: str, names: Sequence[str], available: Mapping[str, _T], default: Sequence[str]) -> tuple[_T, ...]:
    """Look names up, the default ones if none are given."""
    unknown = [name for name in names if name not in available]
    if unknown:
        raise SettingsError(f"WorldSpec.{field}: unknown {unknown}; known are {', '.join(available)}")
    return tuple(available[name] for name in (names or default))


def _kinds(spec: WorldSpec, available: Mapping[str, ObjectKind], default: Sequence[str]) -> tuple[ObjectKind, ...]:
    """Return the object classes of a world, with the sprites of its art sets."""
    kinds = _chosen("objects", spec.objects, available, default)
    if not spec.art_sets:
        return kinds
    drawn = {kind.name: kind.drawn_from(spec.art_sets) for kind in kinds}
    if spec.objects and None in drawn.values():
        without = ", ".join(name for name, kind in drawn.items() if kind is None)
        raise SettingsError(
            f"WorldSpec: no sprites of {without} in {', '.join(spec.art_sets)}; add one of {', '.join(ART_SETS)}"
        )
    return tuple(kind for kind in drawn.values() if kind is not None)


def _ranks(own: list[int], parts: Sequence[Part], order: Order | None) -> tuple[list[int], list[int]]:
    """Return the rank of each object among the objects, and of each instance among all."""
    if order is None or isinstance(order, str):
        if order not in (None, "reversed"):
            raise SettingsError(f"order is {order!r}; give 'reversed' or a rank for each instance")
        objects = own if order is None else [len(own) - 1 - z for z in own]
        return objects, ranks_with_parts(objects, parts)
    given = [int(z) for z in order]
    if sorted(given) != list(range(len(own) + len(parts))):
        raise SettingsError(f"order is {order!r}; give 'reversed' or a permutation of 0..{len(own) + len(parts) - 1}")
    objects = [sum(other < rank for other in given[: len(own)]) for rank in given[: len(own)]]
    if ranks_with_parts(objects, parts) != given:
        raise SettingsError(f"order is {order!r}; give each part the rank after its object's")
    return objects, given


def _part_instance(
    rng: np.random.Generator, part: Part, named: Named, visible: NDArray[np.bool_], rank: int
) -> WorldInstance:
    captions = part_captions(rng, named, part.name)
    return WorldInstance(
        captions[0],
        f"{named.kind.name} {part_word(part.name)}",
        None,
        named.facing,
        rank,
        part.box,
        part.region,
        part.region & visible,
        drawing=named.look.icon,
        style=named.look.style,
        captions=captions,
        part_of=part.of,
    )


def _truly_overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> bool:
    """Tell whether two silhouettes overlap enough (3 % of the smaller) for their depth order to be visible."""
    return bool((a & b).sum() >= 0.03 * min(a.sum(), b.sum()))
