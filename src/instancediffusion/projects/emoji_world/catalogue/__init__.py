"""The object classes of the built-in world, each inspected by eye.

Orientations, colours and parts are given only where they were checked by eye, on the contact sheets that
`instancediffusion world sheet` draws. Classes outside the core have good sprites too, but are easily confused with a
class of the core (a taxi with a yellow car), or of less use; a `WorldSpec` may name them.
"""

from dataclasses import replace

from ..kinds import check_kinds
from .animals import ANIMALS
from .everyday import EVERYDAY
from .food import FOOD
from .landscape import PLACES, PLANTS
from .other_parts import MORE_PARTS
from .others import with_others
from .parts import PARTS
from .things import THINGS
from .vehicles import VEHICLES

_LATER = frozenset(
    (
        *("bear", "deer", "eagle", "tangerine", "cookie", "loaf of bread", "cup of coffee", "bouquet", "branch"),
        *("fountain", "statue", "temple", "rock", "cloud", "painting"),
    )
)
"""Classes that were added to the core after the first model was trained."""

KINDS = check_kinds(
    replace(
        kind,
        parts=PARTS.get(kind.name, {}) | MORE_PARTS["noto"].get(kind.name, {}),
        others=with_others(kind),
        core=kind.core or kind.name in _LATER,
        everyday=EVERYDAY.get(kind.name, ()),
        animal=kind in ANIMALS,
    )
    for kind in ANIMALS + FOOD + PLANTS + PLACES + VEHICLES + THINGS
)
"""Every class whose sprites are built."""

CORE = tuple(kind.name for kind in KINDS if kind.core)
"""The names a `WorldSpec` uses when it names none."""

FIRST_CORE = tuple(name for name in CORE if name not in _LATER)
"""The core the first model was trained on."""

__all__ = ["CORE", "FIRST_CORE", "KINDS"]
