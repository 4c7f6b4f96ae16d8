"""The object classes of a world: their words, and their sprites with colours, orientation and parts."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from instancediffusion.errors import SettingsError

from .art_sets import ART_SETS, NOTO
from .colours import COLOURS

Facing = Literal["left", "right"]

Corners = tuple[float, float, float, float]
"""A box x0, y0, x1, y1, in fractions of a sprite."""


@dataclass(frozen=True)
class Drawing:
    """One sprite of an object class.

    Attributes:
        icon: its key in the art: "set:icon", or the icon alone for the set `NOTO`.
        traits: adjectives that are true of it ("ripe"); a caption may use one of them.
        colour: its named colour as it is, if a caption may name one; else None.
        colours: the named colours it can truthfully be given, `colour` among them; empty where it keeps its own.
        tint: the hues, in degrees (from, to; `from > to` wraps through 0), of the part that takes the colour.
        facing: its orientation, if it has one; then half of the instances are mirrored.
        specks: whether small disconnected components belong to it (the rays of the sun do, the stars around a mountain
            do not).
        parts: name of a part ("head", "beak", "left ear") -> its box in the sprite as it is in the art set.
        repaint: whether to recolour it to `colour` too, where its original shade is not quite of that name.
    """

    icon: str
    traits: tuple[str, ...] = ()
    colour: str | None = None
    colours: tuple[str, ...] = ()
    tint: tuple[float, float] | None = None
    facing: Facing | None = None
    specks: bool = True
    parts: Mapping[str, Corners] = field(default_factory=dict, hash=False)
    repaint: bool = False

    def __post_init__(self) -> None:
        unknown = [colour for colour in (*self.colours, self.colour) if colour is not None and colour not in COLOURS]
        if unknown:
            raise SettingsError(f"{self.icon}: unknown colours {unknown}; take them from {', '.join(COLOURS)}")
        if bool(self.colours) != (self.tint is not None) or (self.colours and self.colour not in self.colours):
            raise SettingsError(f"{self.icon}: `colours` and `tint` go together, and `colour` is one of `colours`")
        for part, (x0, y0, x1, y1) in self.parts.items():
            if not (0.0 <= x0 < x1 <= 1.0 and 0.0 <= y0 < y1 <= 1.0):
                raise SettingsError(f"{self.icon}: the part {part!r} is no box x0 y0 x1 y1 within 0..1; correct it")
        if self.art_set not in ART_SETS:
            raise SettingsError(f"{self.icon}: unknown art set {self.art_set!r}; known are {', '.join(ART_SETS)}")

    @property
    def art_set(self) -> str:
        """The name of the set it is from."""
        name, colon, _ = self.icon.partition(":")
        return name if colon else NOTO.name

    @property
    def style(self) -> str:
        """The word for its style, see `ArtSet.style`."""
        return ART_SETS[self.art_set].style

    @property
    def facings(self) -> tuple[Facing, ...]:
        """The orientations of an instance: both, or none at all."""
        return ("left", "right") if self.facing else ()

    def parts_facing(self, facing: Facing | None) -> dict[str, Corners]:
        """Return the boxes of the parts in one orientation; in a mirrored sprite a left ear is a right one."""
        if facing is None or facing == self.facing:
            return dict(self.parts)
        return {_other_side(name): (1.0 - x1, y0, 1.0 - x0, y1) for name, (x0, y0, x1, y1) in self.parts.items()}


@dataclass(frozen=True)
class ObjectKind:
    """One object class.

    Its first sprite is written into the class itself: `icon`, `traits`, `colour`, `colours`, `tint`, `facing`,
    `specks`, `parts` and `repaint` are those of `Drawing`.

    Attributes:
        name: the class name in the ground truth ("dog").
        icon: the key of its first sprite in the art.
        synonyms: other words a caption may use instead of the name ("puppy").
        stands: whether it throws a shadow on the ground (a star does not).
        core: whether it is among the classes a `WorldSpec` uses when it names none.
        others: its further sprites.
        everyday: further words for it, narrower ones among them ("corgi"); see `WorldInstance.captions`.
        animal: whether it is one, or looks like one (a teddy bear); what sits or stands, and what is cute.
    """

    name: str
    icon: str
    synonyms: tuple[str, ...] = ()
    traits: tuple[str, ...] = ()
    colour: str | None = None
    colours: tuple[str, ...] = ()
    tint: tuple[float, float] | None = None
    facing: Facing | None = None
    stands: bool = True
    specks: bool = True
    core: bool = True
    repaint: bool = False
    parts: Mapping[str, Corners] = field(default_factory=dict, hash=False)
    others: tuple[Drawing, ...] = ()
    everyday: tuple[str, ...] = ()
    animal: bool = False

    def __post_init__(self) -> None:
        icons = [drawing.icon for drawing in self.drawings]
        if len(set(icons)) < len(icons):
            raise SettingsError(f"{self.name}: a sprite is given twice among {icons}; drop one of them")

    @property
    def drawings(self) -> tuple[Drawing, ...]:
        """All sprites, the first one first."""
        own = {name: getattr(self, name) for name in Drawing.__dataclass_fields__}
        return (Drawing(**own), *self.others)

    @property
    def words(self) -> tuple[str, ...]:
        """The name and its synonyms."""
        return (self.name, *self.synonyms)

    @property
    def nouns(self) -> tuple[str, ...]:
        """Every word for it, everyday ones included."""
        return (*self.words, *self.everyday)

    @property
    def facings(self) -> tuple[Facing, ...]:
        """The orientations of the first sprite: both, or none at all."""
        return ("left", "right") if self.facing else ()

    def outside_core(self) -> "ObjectKind":
        """Return the same class, outside the core."""
        return replace(self, core=False)

    def parts_facing(self, facing: Facing | None) -> dict[str, Corners]:
        """Return the boxes of the first sprite's parts; see `Drawing.parts_facing`."""
        return self.drawings[0].parts_facing(facing)

    def drawn_from(self, art_sets: Collection[str]) -> "ObjectKind | None":
        """Return the class with only the sprites from some art sets; None if it has none from them."""
        kept = [drawing for drawing in self.drawings if drawing.art_set in art_sets]
        if not kept:
            return None
        first = {name: getattr(kept[0], name) for name in Drawing.__dataclass_fields__}
        return replace(self, **first, others=tuple(kept[1:]))


def _other_side(part: str) -> str:
    side, _, rest = part.partition(" ")
    return {"left": f"right {rest}", "right": f"left {rest}"}.get(side, part)


def check_kinds(kinds: Iterable[ObjectKind]) -> tuple[ObjectKind, ...]:
    """Return the classes as a tuple, or raise `SettingsError` where a word would name two of them."""
    owner: dict[str, str] = {}
    result = tuple(kinds)
    for kind in result:
        for word in kind.nouns:
            if owner.setdefault(word, kind.name) != kind.name or kind.nouns.count(word) > 1:
                raise SettingsError(f"{kind.name}: the word {word!r} already names {owner[word]!r}; drop one of them")
    return result
