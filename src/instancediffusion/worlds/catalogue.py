"""The kinds of objects of the built-in world, looked at one by one.

Sides and colours stand here only where they were checked by eye on the sheets of `instancediffusion world sheet`.
"""

from .kinds import ObjectKind as Kind
from .kinds import check_kinds

_MANY = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black")
_PAINT = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "white", "black")
_PETALS = ("red", "orange", "yellow", "blue", "purple", "pink", "white")

_ANIMALS = (
    Kind("dog", "dog", ("puppy",), ("cute", "spotted")),
    Kind("cat", "cat", ("kitten",), ("cute", "striped"), facing="left"),
    Kind("panda", "panda", ("panda bear",), ("cute",)),
    Kind("polar bear", "polar-bear", ("white bear",), ()),
    Kind("donkey", "donkey", (), ("gray", "jumping"), facing="left"),
    Kind("horse", "horse", ("pony",), ("brown", "running"), facing="left"),
    Kind("cow", "cow", (), ("spotted",), facing="left"),
    Kind("pig", "pig", ("piglet",), ("pink",)),
    Kind("sheep", "ewe", ("lamb",), ("fluffy", "woolly"), core=False),
    Kind("rabbit", "rabbit", ("bunny",), ("gray", "cute"), facing="left"),
    Kind("fox", "fox", (), ("orange",)),
    Kind("frog", "frog", (), ("green", "smiling")),
    Kind("lion", "lion", (), ("proud",)),
    Kind("tiger", "tiger", (), ("striped",), facing="left"),
    Kind("zebra", "zebra", (), ("striped",), facing="left", core=False),
    Kind("giraffe", "giraffe", (), ("tall", "spotted"), facing="left", core=False),
    Kind("elephant", "elephant", (), ("gray", "big"), facing="left"),
    Kind("monkey", "monkey", (), ("brown",), core=False),
    Kind("bird", "bird", (), ("little",), "blue", _PAINT, (180, 225), "left"),
    Kind("duck", "duck", ("mallard",), (), facing="left"),
    Kind("owl", "owl", (), ("brown", "wise")),
    Kind("penguin", "penguin", (), (), facing="left"),
    Kind("parrot", "parrot", (), ("green",), facing="left", core=False),
    Kind("flamingo", "flamingo", (), ("pink",), facing="left", core=False),
    Kind("fish", "fish", (), (), "blue", _MANY, (180, 235), "left"),
    Kind("whale", "whale", (), ("big",), facing="left"),
    Kind("octopus", "octopus", (), ("red",)),
    Kind("crab", "crab", (), ("orange",), core=False),
    Kind("turtle", "turtle", ("tortoise",), ("green",), facing="left"),
    Kind("snail", "snail", (), ("brown",), facing="left", core=False),
    Kind("butterfly", "butterfly", (), ("pretty",), "blue", _MANY[:-1], (180, 225), stands=False),
    Kind("ladybug", "lady-beetle", ("ladybird",), ("spotted",)),
    Kind("teddy bear", "teddy-bear", ("teddy",), ("soft",), "brown", _PAINT, (5, 30)),
)

_FOOD = (
    Kind(
        "apple", "red-apple", (), ("ripe", "shiny"), "red", ("red", "green", "yellow", "pink"), (345, 25), repaint=True
    ),
    Kind("pear", "pear", (), ("ripe",), "green", ("green", "yellow", "red", "brown"), (55, 90), repaint=True),
    Kind("banana", "banana", (), ("ripe", "yellow", "peeled")),
    Kind("strawberry", "strawberry", (), ("ripe", "red")),
    Kind("watermelon", "watermelon", ("slice of watermelon",), ("juicy",), core=False),
    Kind("pineapple", "pineapple", (), ("ripe",), core=False),
    Kind("pumpkin", "jack-o-lantern", (), ("orange", "carved"), core=False),
    Kind("carrot", "carrot", (), ("orange",), core=False),
    Kind("mushroom", "mushroom", ("toadstool",), ("spotted",), "red", _PAINT[:-2], (345, 25), repaint=True),
    Kind("cake", "birthday-cake", ("birthday cake",), ("sweet",)),
    Kind("cupcake", "cupcake", ("muffin",), ("sweet",)),
    Kind("donut", "doughnut", ("doughnut",), ("chocolate", "round")),
    Kind("hamburger", "hamburger", ("burger",), (), core=False),
    Kind("teapot", "teapot", (), ("shiny",), "red", _MANY, (345, 20), core=False),
)

_PLANTS = (
    Kind("rose", "rose", (), ("pretty",), "red", _PETALS, (335, 15)),
    Kind("tulip", "tulip", (), ("pretty",), "pink", _PETALS, (325, 360)),
    Kind("flower", "blossom", ("blossom",), ("pretty", "round"), "yellow", _PETALS, (35, 60)),
    Kind("sunflower", "sunflower", (), ("tall",)),
    Kind("tree", "deciduous-tree", (), ("green", "leafy")),
    Kind("pine tree", "evergreen-tree", ("fir tree",), ("green", "tall"), core=False),
    Kind("palm tree", "palm-tree", ("palm",), ("tall",)),
    Kind("cactus", "cactus", (), ("green", "prickly")),
)

_PLACES = (
    Kind("mountain", "mountain", ("mountain peak",), ("rocky",), specks=False),
    Kind("snowy mountain", "snow-capped-mountain", ("iceberg",), ("high",), specks=False, core=False),
    Kind("hut", "hut", ("straw hut",), ("small",)),
    Kind("house", "house", ("home",), ("cozy",)),
    Kind("castle", "castle", (), ("old", "stone")),
    Kind("lighthouse", "lighthouse", (), ("tall",), specks=False, core=False),
    Kind("tent", "tent", (), ("camping",), "orange", _MANY, (10, 40), core=False),
)

_VEHICLES = (
    Kind("car", "automobile", ("automobile",), ("shiny",), "red", _MANY, (345, 15)),
    Kind("bus", "bus", (), ("yellow",)),
    Kind("bicycle", "bicycle", ("bike",), ()),
    Kind("train", "locomotive", ("steam train", "locomotive"), (), facing="left", core=False),
    Kind("airplane", "airplane", ("plane",), ("flying",), stands=False),
    Kind("rocket", "rocket", ("spaceship",), ("flying",), stands=False, specks=False),
    Kind("sailboat", "sailboat", ("boat",), ()),
)

_THINGS = (
    Kind("chair", "chair", ("wooden chair",), ()),
    Kind("balloon", "balloon", (), ("shiny", "floating"), "red", _PAINT, (345, 15), stands=False),
    Kind("umbrella", "umbrella", (), ("open",), "purple", _MANY, (225, 265)),
    Kind("guitar", "guitar", ("electric guitar",), (), "red", _MANY, (345, 12)),
    Kind("gift", "wrapped-gift", ("present",), ("wrapped",), "orange", _PAINT, (24, 58)),
    Kind("crown", "crown", (), ("golden",)),
    Kind("ball", "basketball", (), ("round",), "orange", _MANY[:-1], (10, 35)),
    Kind("clock", "alarm-clock", ("alarm clock",), (), "red", _MANY, (345, 15)),
    Kind("candle", "candle", (), ("lit", "burning"), core=False),
    Kind("book", "closed-book", (), ("closed",), "red", _MANY, (345, 15)),
    Kind("key", "key", (), ("golden",), core=False),
    Kind("star", "star", (), ("bright",), "yellow", _PETALS, (30, 60), stands=False),
    Kind("sun", "sun", (), ("bright", "yellow"), stands=False),
    Kind("moon", "crescent-moon", ("crescent moon",), ("bright",), stands=False),
    Kind("vase", "amphora", ("amphora",), ("ceramic",), "orange", _PAINT, (5, 35)),
    Kind("hat", "billed-cap", ("cap",), (), "blue", _MANY, (195, 225)),
    Kind("backpack", "backpack", (), (), "red", _MANY, (345, 15), core=False),
    Kind("bucket", "bucket", ("pail",), (), "blue", _MANY, (190, 225), core=False),
)

KINDS = check_kinds(_ANIMALS + _FOOD + _PLANTS + _PLACES + _VEHICLES + _THINGS)
"""Every kind whose sprite is built."""

CORE = tuple(kind.name for kind in KINDS if kind.core)
"""The names a `WorldSpec` uses when it names none."""
