"""What one kind of object in a world is: its drawing, its words, its colours, its side."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from instancediffusion.errors import SettingsError

from .colours import COLOURS

Facing = Literal["left", "right"]


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

    def __post_init__(self) -> None:
        unknown = [colour for colour in self.colours if colour not in COLOURS]
        if unknown:
            raise SettingsError(f"{self.name}: unknown colours {unknown}; take them from {', '.join(COLOURS)}")
        if bool(self.colours) != (self.tint is not None) or (self.colours and self.colour not in self.colours):
            raise SettingsError(
                f"{self.name}: `colour`, `colours` and `tint` go together, and `colour` is one of `colours`"
            )

    @property
    def words(self) -> tuple[str, ...]:
        """The name and its synonyms."""
        return (self.name, *self.synonyms)

    @property
    def facings(self) -> tuple[Facing, ...]:
        """The sides an instance can look to: both, or none at all."""
        return ("left", "right") if self.facing else ()


def check_kinds(kinds: Iterable[ObjectKind]) -> tuple[ObjectKind, ...]:
    """Return the kinds as a tuple, or raise `SettingsError` where a word would name two of them."""
    owner: dict[str, str] = {}
    result = tuple(kinds)
    for kind in result:
        for word in kind.words:
            if owner.setdefault(word, kind.name) != kind.name or kind.words.count(word) > 1:
                raise SettingsError(f"{kind.name}: the word {word!r} already names {owner[word]!r}; drop one of them")
    return result
