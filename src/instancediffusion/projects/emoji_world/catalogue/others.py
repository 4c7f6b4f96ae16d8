"""Further sprites of the classes, from other art sets than the first, each inspected by eye.

A sprite is taken if it shows its class at a glance and as a whole (a head where the first sprite is a head). It has its
own orientation, and its own hues where its colour can be named and changed; the others keep their colours.
"""

from functools import partial

from ..kinds import Drawing, Facing, ObjectKind
from .other_parts import MORE_PARTS

_Tint = tuple[float, float]

_TRUE_OF_ALL = frozenset(
    (
        *("big", "bright", "burning", "cozy", "cute", "fluffy", "flying", "golden", "leafy", "little", "old", "open"),
        *("pretty", "ripe", "round", "shiny", "soft", "tall"),
    )
)
"""Adjectives that hold for every sprite of a class they are used for, not only for the first."""


def with_others(kind: ObjectKind) -> tuple[Drawing, ...]:
    """Return the further sprites of a class: their colours are the class's, their traits those that hold for all."""
    traits = tuple(trait for trait in kind.traits if trait in _TRUE_OF_ALL)
    return tuple(
        Drawing(
            f"{art_set}:{icon}",
            traits,
            colour,
            kind.colours if tint else (),
            tint,
            facing,
            kind.specks,
            MORE_PARTS.get(art_set, {}).get(kind.name, {}),
            repaint=tint is not None,
        )
        for art_set, icon, colour, tint, facing in _OTHERS.get(kind.name, ())
    )


_Row = tuple[str, str, str | None, _Tint | None, Facing | None]


def _row(
    art_set: str, icon: str, colour: str | None = None, tint: _Tint | None = None, *, facing: Facing | None = None
) -> _Row:
    return (art_set, icon, colour, tint, facing)


_blob, _flat, _glossy, _own = (partial(_row, art_set) for art_set in ("noto-v1", "fluent-flat", "fluent", "own"))

_OTHERS: dict[str, tuple[_Row, ...]] = {
    "dog": (_blob("dog"), _flat("dog", facing="left"), _glossy("dog", facing="left")),
    "cat": (_blob("cat"), _flat("cat", facing="left"), _glossy("cat", facing="left")),
    "panda": (_blob("panda"), _flat("panda"), _glossy("panda")),
    "polar bear": (_flat("polar-bear"), _glossy("polar-bear")),
    "donkey": (_flat("donkey", facing="left"), _glossy("donkey", facing="left")),
    "horse": (_blob("horse", facing="left"), _flat("horse", facing="left"), _glossy("horse", facing="left")),
    "cow": (_blob("cow", facing="left"), _flat("cow", facing="left"), _glossy("cow", facing="left")),
    "pig": (_blob("pig"), _flat("pig", facing="left"), _glossy("pig", facing="left")),
    "sheep": (_blob("ewe"), _flat("ewe", facing="left"), _glossy("ewe", facing="left")),
    "rabbit": (_blob("rabbit"), _flat("rabbit", facing="left"), _glossy("rabbit", facing="left")),
    "fox": (_blob("fox"), _flat("fox"), _glossy("fox")),
    "frog": (_blob("frog"), _flat("frog"), _glossy("frog")),
    "lion": (_blob("lion"), _flat("lion"), _glossy("lion")),
    "tiger": (_blob("tiger", facing="left"), _flat("tiger", facing="left"), _glossy("tiger", facing="left")),
    "zebra": (_flat("zebra", facing="left"), _glossy("zebra", facing="left")),
    "giraffe": (_flat("giraffe", facing="left"), _glossy("giraffe", facing="left")),
    "elephant": (_flat("elephant", facing="left"), _glossy("elephant", facing="left")),
    "monkey": (_blob("monkey"), _flat("monkey"), _glossy("monkey")),
    "camel": (_blob("camel", facing="left"), _flat("camel", facing="left"), _glossy("camel", facing="left")),
    "mouse": (_blob("mouse"), _flat("mouse", facing="left"), _glossy("mouse", facing="left")),
    "squirrel": (
        _blob("chipmunk", facing="left"),
        _flat("chipmunk", facing="left"),
        _glossy("chipmunk", facing="left"),
    ),
    "bird": (
        _blob("bird", "blue", (180, 225), facing="left"),
        _flat("bird", "red", (325, 359), facing="left"),
        _glossy("bird", "red", (305, 359), facing="left"),
    ),
    "duck": (_blob("duck", facing="left"), _flat("duck", facing="left"), _glossy("duck", facing="left")),
    "swan": (_flat("swan", facing="left"), _glossy("swan", facing="left")),
    "owl": (_blob("owl"), _flat("owl"), _glossy("owl")),
    "rooster": (_blob("rooster", facing="left"), _flat("rooster", facing="left"), _glossy("rooster", facing="left")),
    "penguin": (_blob("penguin", facing="left"), _flat("penguin"), _glossy("penguin")),
    "parrot": (_flat("parrot", facing="left"), _glossy("parrot", facing="left")),
    "flamingo": (_flat("flamingo", facing="left"), _glossy("flamingo", facing="left")),
    "fish": (
        _blob("fish", "blue", (180, 225), facing="left"),
        _flat("fish", "blue", (180, 235), facing="left"),
        _glossy("fish", "blue", (180, 260), facing="left"),
    ),
    "whale": (_blob("whale", facing="left"), _flat("whale", facing="left"), _glossy("whale", facing="left")),
    "dolphin": (_blob("dolphin", facing="left"), _flat("dolphin", facing="left"), _glossy("dolphin", facing="left")),
    "octopus": (
        _blob("octopus", "red", (0, 30)),
        _flat("octopus", "red", (340, 30)),
        _glossy("octopus", "red", (300, 45)),
    ),
    "crab": (_blob("crab"), _flat("crab"), _glossy("crab")),
    "turtle": (_blob("turtle", facing="left"), _flat("turtle", facing="left"), _glossy("turtle", facing="left")),
    "snail": (_blob("snail", facing="left"), _flat("snail", facing="left"), _glossy("snail", facing="left")),
    "dinosaur": (_flat("sauropod", facing="left"), _glossy("sauropod", facing="left")),
    "butterfly": (
        _blob("butterfly", "orange", (5, 45)),
        _flat("butterfly", "orange", (5, 35)),
        _glossy("butterfly", "red", (340, 35)),
    ),
    "bee": (_blob("honeybee", facing="left"), _flat("honeybee"), _glossy("honeybee")),
    "ladybug": (_blob("lady-beetle"), _flat("lady-beetle"), _glossy("lady-beetle")),
    "teddy bear": (_flat("teddy-bear", "brown", (18, 42)), _glossy("teddy-bear", "brown", (5, 42))),
    "snowman": (_blob("snowman"), _flat("snowman"), _glossy("snowman")),
    "robot": (_blob("robot"), _flat("robot"), _glossy("robot")),
    "apple": (
        _blob("red-apple", "red", (345, 20)),
        _flat("red-apple", "red", (345, 20)),
        _glossy("red-apple", "red", (315, 5)),
    ),
    "pear": (_blob("pear", "green", (55, 72)), _flat("pear", "green", (62, 85)), _glossy("pear", "green", (15, 85))),
    "lemon": (_blob("lemon"), _flat("lemon"), _glossy("lemon")),
    "banana": (_blob("banana"), _flat("banana"), _glossy("banana")),
    "watermelon": (_blob("watermelon"), _flat("watermelon"), _glossy("watermelon")),
    "bunch of grapes": (
        _blob("grapes", "pink", (320, 350)),
        _flat("grapes", "purple", (235, 290)),
        _glossy("grapes", "purple", (250, 290)),
    ),
    "strawberry": (_blob("strawberry"), _flat("strawberry"), _glossy("strawberry")),
    "pineapple": (_blob("pineapple"), _flat("pineapple"), _glossy("pineapple")),
    "pumpkin": (_blob("jack-o-lantern"), _flat("jack-o-lantern"), _glossy("jack-o-lantern")),
    "carrot": (_blob("carrot"), _flat("carrot"), _glossy("carrot")),
    "mushroom": (
        _blob("mushroom", "orange", (5, 32)),
        _flat("mushroom", "red", (345, 15)),
        _glossy("mushroom", "red", (325, 12)),
    ),
    "cake": (_blob("birthday-cake"), _flat("birthday-cake"), _glossy("birthday-cake")),
    "cupcake": (_flat("cupcake"), _glossy("cupcake")),
    "donut": (_blob("doughnut"), _flat("doughnut"), _glossy("doughnut")),
    "ice cream": (_blob("soft-ice-cream"), _flat("soft-ice-cream"), _glossy("soft-ice-cream")),
    "hamburger": (_blob("hamburger"), _flat("hamburger"), _glossy("hamburger")),
    "pizza": (_blob("pizza"), _flat("pizza"), _glossy("pizza")),
    "piece of cheese": (_blob("cheese-wedge"), _flat("cheese-wedge"), _glossy("cheese-wedge")),
    "teapot": (_flat("teapot", "red", (335, 10)), _glossy("teapot", "pink", (320, 359))),
    "rose": (_blob("rose", "red", (5, 25)),),
    "tulip": (
        _blob("tulip", "orange", (5, 35)),
        _flat("tulip", "pink", (315, 335)),
        _glossy("tulip", "pink", (305, 340)),
    ),
    "flower": (_blob("blossom", "pink", (325, 345)), _flat("blossom", "white")),
    "sunflower": (_blob("sunflower"), _flat("sunflower"), _glossy("sunflower")),
    "tree": (_blob("deciduous-tree"), _flat("deciduous-tree"), _glossy("deciduous-tree")),
    "pine tree": (_blob("evergreen-tree"), _flat("evergreen-tree"), _glossy("evergreen-tree")),
    "palm tree": (_blob("palm-tree"), _flat("palm-tree"), _glossy("palm-tree")),
    "cactus": (_blob("cactus"), _flat("cactus"), _glossy("cactus")),
    "potted plant": (_flat("potted-plant"), _glossy("potted-plant")),
    "mountain": (_blob("mountain"),),
    "volcano": (_blob("volcano"), _flat("volcano"), _glossy("volcano")),
    "hut": (_flat("hut"), _glossy("hut")),
    "house": (_blob("house"), _flat("house"), _glossy("house")),
    "castle": (_blob("castle"), _flat("castle"), _glossy("castle")),
    "tent": (_blob("tent", "yellow", (15, 50)),),
    "church": (_blob("church"), _flat("church"), _glossy("church")),
    "car": (
        _blob("automobile", "blue", (195, 215)),
        _flat("automobile", "red", (345, 15)),
        _glossy("automobile", "red", (315, 5)),
    ),
    "bus": (_blob("bus"), _flat("bus"), _glossy("bus")),
    "truck": (
        _blob("delivery-truck", facing="left"),
        _flat("delivery-truck", facing="left"),
        _glossy("delivery-truck", facing="left"),
    ),
    "tractor": (_blob("tractor", facing="left"), _flat("tractor", facing="left"), _glossy("tractor", facing="left")),
    "motorcycle": (
        _blob("motorcycle", "orange", (5, 25), facing="left"),
        _flat("motorcycle", "red", (330, 10), facing="left"),
        _glossy("motorcycle", "red", (320, 10), facing="left"),
    ),
    "scooter": (
        _blob("motor-scooter", "blue", (180, 205), facing="left"),
        _flat("motor-scooter", "red", (330, 355), facing="left"),
        _glossy("motor-scooter", "red", (320, 359), facing="left"),
    ),
    "bicycle": (_blob("bicycle"), _flat("bicycle"), _glossy("bicycle")),
    "train": (
        _blob("locomotive", facing="left"),
        _flat("locomotive", facing="left"),
        _glossy("locomotive", facing="left"),
    ),
    "airplane": (_blob("airplane"), _flat("airplane"), _glossy("airplane")),
    "helicopter": (
        _blob("helicopter", facing="left"),
        _flat("helicopter", facing="left"),
        _glossy("helicopter", facing="left"),
    ),
    "rocket": (_blob("rocket"), _flat("rocket"), _glossy("rocket")),
    "sailboat": (_blob("sailboat"), _flat("sailboat"), _glossy("sailboat")),
    "ship": (_blob("ship"), _flat("ship"), _glossy("ship")),
    "chair": (_flat("chair"), _glossy("chair")),
    "sofa": (
        _blob("couch-and-lamp", "orange", (30, 50)),
        _flat("couch-and-lamp", "blue", (210, 240)),
        _glossy("couch-and-lamp", "blue", (210, 235)),
    ),
    "bed": (_blob("bed"), _flat("bed"), _glossy("bed")),
    "light bulb": (_blob("light-bulb"), _flat("light-bulb"), _glossy("light-bulb")),
    "balloon": (
        _blob("balloon", "orange", (5, 30)),
        _flat("balloon", "red", (340, 12)),
        _glossy("balloon", "red", (305, 5)),
    ),
    "umbrella": (
        _blob("umbrella", "blue", (185, 215)),
        _flat("umbrella", "purple", (240, 275)),
        _glossy("umbrella", "purple", (245, 275)),
    ),
    "guitar": (
        _blob("guitar", "orange", (5, 25)),
        _flat("guitar", "red", (330, 355)),
        _glossy("guitar", "red", (315, 359)),
    ),
    "drum": (_blob("drum"), _flat("drum"), _glossy("drum")),
    "trumpet": (_blob("trumpet"), _flat("trumpet"), _glossy("trumpet")),
    "bell": (_blob("bell"), _flat("bell"), _glossy("bell")),
    "gift": (
        _blob("wrapped-gift", "yellow", (30, 55)),
        _flat("wrapped-gift", "yellow", (28, 55)),
        _glossy("wrapped-gift", "yellow", (18, 58)),
    ),
    "crown": (_blob("crown"), _flat("crown"), _glossy("crown")),
    "ball": (_flat("basketball", "orange", (5, 30)), _glossy("basketball", "orange", (345, 38))),
    "soccer ball": (_blob("soccer-ball"), _flat("soccer-ball"), _glossy("soccer-ball")),
    "clock": (
        _blob("alarm-clock", "blue", (190, 215)),
        _flat("alarm-clock", "red", (345, 15)),
        _glossy("alarm-clock", "red", (325, 359)),
    ),
    "candle": (_blob("candle"), _flat("candle"), _glossy("candle")),
    "book": (
        _blob("closed-book", "pink", (325, 345)),
        _flat("closed-book", "red", (330, 355)),
        _glossy("closed-book", "red", (325, 359)),
    ),
    "key": (_blob("key"), _flat("key"), _glossy("key")),
    "star": (_flat("star", "yellow", (30, 60)), _glossy("star", "yellow", (30, 60))),
    "sun": (_blob("sun"), _flat("sun"), _glossy("sun")),
    "moon": (_blob("crescent-moon"), _flat("crescent-moon"), _glossy("crescent-moon")),
    "rainbow": (_blob("rainbow"), _flat("rainbow"), _glossy("rainbow")),
    "heart": (
        _blob("red-heart", "pink", (325, 345)),
        _flat("red-heart", "red", (335, 15)),
        _glossy("red-heart", "pink", (315, 2)),
    ),
    "hat": (_flat("billed-cap", "blue", (205, 245)), _glossy("billed-cap", "blue", (205, 245))),
    "shoe": (_blob("running-shoe", "blue", (190, 215)), _flat("running-shoe"), _glossy("running-shoe")),
    "backpack": (
        _blob("backpack", "orange", (5, 25)),
        _flat("backpack", "red", (340, 12)),
        _glossy("backpack", "pink", (322, 355)),
    ),
    "bucket": (_flat("bucket", "blue", (185, 215)), _glossy("bucket", "blue", (185, 225))),
    "camera": (_blob("camera"), _flat("camera"), _glossy("camera")),
    "television": (_blob("television"), _flat("television"), _glossy("television")),
    "telephone": (
        _blob("telephone", "blue", (185, 215)),
        _flat("telephone", "red", (330, 355)),
        _glossy("telephone", "pink", (322, 359)),
    ),
    "pair of scissors": (_blob("scissors"), _flat("scissors"), _glossy("scissors")),
    "trophy": (_blob("trophy"), _flat("trophy"), _glossy("trophy")),
    "diamond": (_blob("gem-stone"), _flat("gem-stone"), _glossy("gem-stone")),
    "kite": (_flat("kite"), _glossy("kite")),
    "bear": (_blob("bear"), _flat("bear"), _glossy("bear")),
    "deer": (_flat("deer", facing="left"), _glossy("deer", facing="left")),
    "eagle": (_blob("eagle", facing="left"), _flat("eagle", facing="left"), _glossy("eagle", facing="left")),
    "tangerine": (_blob("tangerine"), _flat("tangerine"), _glossy("tangerine")),
    "cookie": (_blob("cookie"), _flat("cookie"), _glossy("cookie")),
    "loaf of bread": (_blob("bread"), _flat("bread"), _glossy("bread")),
    "cup of coffee": (_blob("hot-beverage"), _flat("hot-beverage"), _glossy("hot-beverage")),
    "bouquet": (_blob("bouquet"), _flat("bouquet"), _glossy("bouquet")),
    "branch": (_blob("herb"), _flat("herb"), _glossy("herb")),
    "fountain": (_blob("fountain"), _flat("fountain"), _glossy("fountain")),
    "statue": (_blob("statue-of-liberty"), _flat("statue-of-liberty"), _glossy("statue-of-liberty")),
    "temple": (_blob("classical-building"), _flat("classical-building"), _glossy("classical-building")),
    "rock": (_flat("rock"), _glossy("rock")),
    "cloud": (_blob("cloud"), _flat("cloud"), _glossy("cloud")),
    "painting": (_blob("framed-picture"), _flat("framed-picture"), _glossy("framed-picture")),
    "vase": (
        _blob("amphora", "orange", (5, 42)),
        _flat("amphora", "brown", (8, 34)),
        _glossy("amphora", "brown", (0, 40)),
    ),
    "table": (_own("round table"),),
    "bench": (_own("slatted bench"),),
    "igloo": (_own("snow igloo"),),
    "iceberg": (_own("peaked iceberg"),),
}
"""Class name -> its further sprites."""
