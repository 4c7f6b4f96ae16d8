"""What one kind of object in a world is: its drawing, its words, its colours, its side."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from instancediffusion.errors import SettingsError

from .colours import COLOURS

Facing = Literal["left", "right"]

Corners = tuple[float, float, float, float]
"""A box x0, y0, x1, y1, in fractions of a drawing."""


@dataclass(frozen=True)
class ObjectKind:
    """One nameable kind of object.

    Attributes:
        name: the one name that counts as truth ("dog").
        icon: the key of its drawing in the art.
        synonyms: other words a caption may use instead of the name ("puppy").
        traits: adjectives that are true of the drawing ("ripe"); a caption may use one of them.
        colour: the named colour of the drawing as it is, for kinds that can be recoloured; else None.
        colours: the named colours it can truthfully have, `colour` among them; empty where it keeps its own.
        tint: the hues, in degrees (from, to; `from > to` wraps through 0), of the part that takes the colour.
        facing: the side the drawing looks to, if it has a side; then half of the instances are mirrored.
        stands: whether it throws a shadow on the ground (a star does not).
        specks: whether small parts that hang loose in the drawing belong to it (the rays of the sun do, the stars
            around a mountain do not).
        core: whether it is among the kinds a `WorldSpec` uses when it names none.
        parts: name of a part ("head", "beak", "left ear") -> its box in the drawing as it is in the art.
        repaint: whether to recolour it to `colour` too, where the drawing's own shade is not quite of that name.
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

    def __post_init__(self) -> None:
        unknown = [colour for colour in self.colours if colour not in COLOURS]
        if unknown:
            raise SettingsError(f"{self.name}: unknown colours {unknown}; take them from {', '.join(COLOURS)}")
        if bool(self.colours) != (self.tint is not None) or (self.colours and self.colour not in self.colours):
            raise SettingsError(
                f"{self.name}: `colour`, `colours` and `tint` go together, and `colour` is one of `colours`"
            )
        for part, (x0, y0, x1, y1) in self.parts.items():
            if not (0.0 <= x0 < x1 <= 1.0 and 0.0 <= y0 < y1 <= 1.0):
                raise SettingsError(f"{self.name}: the part {part!r} is no box x0 y0 x1 y1 within 0..1; correct it")

    @property
    def words(self) -> tuple[str, ...]:
        """The name and its synonyms."""
        return (self.name, *self.synonyms)

    @property
    def facings(self) -> tuple[Facing, ...]:
        """The sides an instance can look to: both, or none at all."""
        return ("left", "right") if self.facing else ()

    def outside_core(self) -> "ObjectKind":
        """Return the same kind, out of the core."""
        return replace(self, core=False)

    def parts_facing(self, facing: Facing | None) -> dict[str, Corners]:
        """Return the boxes of the parts for one side; in a mirrored drawing a left ear is a right one."""
        if facing is None or facing == self.facing:
            return dict(self.parts)
        return {_other_side(name): (1.0 - x1, y0, 1.0 - x0, y1) for name, (x0, y0, x1, y1) in self.parts.items()}


def _other_side(part: str) -> str:
    side, _, rest = part.partition(" ")
    return {"left": f"right {rest}", "right": f"left {rest}"}.get(side, part)


def check_kinds(kinds: Iterable[ObjectKind]) -> tuple[ObjectKind, ...]:
    """Return the kinds as a tuple, or raise `SettingsError` where a word would name two of them."""
    owner: dict[str, str] = {}
    result = tuple(kinds)
    for kind in result:
        for word in kind.words:
            if owner.setdefault(word, kind.name) != kind.name or kind.words.count(word) > 1:
                raise SettingsError(f"{kind.name}: the word {word!r} already names {owner[word]!r}; drop one of them")
    return result
