"""Plants, buildings, mountains."""

from ..colours import MANY, PETALS
from ..kinds import ObjectKind as Kind

_PLANTS = (
    Kind("rose", "rose", (), ("pretty",), "red", PETALS, (335, 15)),
    Kind("tulip", "tulip", (), ("pretty",), "pink", PETALS, (325, 360)),
    Kind("flower", "blossom", (), ("pretty", "round"), "yellow", PETALS, (35, 60)),
    Kind("sunflower", "sunflower", (), ("tall",)),
    Kind("tree", "deciduous-tree", (), ("green", "leafy")),
    Kind("pine tree", "evergreen-tree", ("fir tree",), ("green", "tall")),
    Kind("palm tree", "palm-tree", ("palm",), ("tall",)),
    Kind("cactus", "cactus", (), ("green",)),
    Kind("potted plant", "potted-plant", (), ("green", "leafy")),
)

_MORE_PLANTS = (
    Kind("hibiscus", "hibiscus", (), ("pink",)),
    Kind("hyacinth", "hyacinth", (), ("purple",)),
    Kind("water lily", "lotus", ("lotus",), ("pink",)),
    Kind("bouquet", "bouquet", ("bunch of flowers",)),
    Kind("branch", "herb", ("twig",), ("leafy",)),
    Kind("seedling", "seedling", ("sprout",), ("green",)),
    Kind("clover", "four-leaf-clover", (), ("green",)),
    Kind("maple leaf", "maple-leaf"),
    Kind("bare tree", "leafless-tree", ("leafless tree",)),
    Kind("nest", "empty-nest", ("empty nest",)),
)

_PLACES = (
    Kind("mountain", "mountain", (), ("rocky",), specks=False),
    Kind("iceberg", "iceberg", (), ("blue",)),
    Kind("volcano", "volcano", (), ("erupting",)),
    Kind("hut", "hut", ("straw hut",)),
    Kind("igloo", "igloo"),
    Kind("house", "house", ("home",)),
    Kind("castle", "castle", (), ("old", "stone")),
    Kind("lighthouse", "lighthouse", (), ("tall",), specks=False),
    Kind("tent", "tent", (), (), "orange", MANY, (10, 40)),
    Kind("church", "church"),
)

_MORE_PLACES = (
    Kind("snowy mountain", "snow-capped-mountain", ("snowy peak",), (), specks=False),
    Kind("office building", "office-building", (), ("gray",)),
    Kind("hospital", "hospital"),
    Kind("school", "school"),
    Kind("circus tent", "circus-tent", ("circus",), ("striped",)),
    Kind("ferris wheel", "ferris-wheel"),
    Kind("fountain", "fountain"),
    Kind("statue", "statue-of-liberty", ("statue of liberty",)),
    Kind("tower", "tokyo-tower", (), ("red", "tall")),
    Kind("temple", "classical-building", ("greek temple",)),
    Kind("factory", "factory"),
    Kind("rock", "rock", ("boulder",), ("gray",)),
)

PLANTS = (*_PLANTS, *(kind.outside_core() for kind in _MORE_PLANTS))
PLACES = (*_PLACES, *(kind.outside_core() for kind in _MORE_PLACES))
