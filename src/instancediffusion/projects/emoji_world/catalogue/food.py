"""Food and drink."""

from ..colours import BRIGHT, MANY
from ..kinds import ObjectKind as Kind

_FRUIT = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")

_CORE = (
    Kind("apple", "red-apple", (), ("ripe",), "red", _FRUIT, (345, 25), repaint=True),
    Kind("pear", "pear", (), ("ripe",), "green", _FRUIT, (55, 90), repaint=True),
    Kind("lemon", "lemon", (), ("yellow",)),
    Kind("banana", "banana", (), ("ripe", "yellow")),
    Kind("watermelon", "watermelon", ("slice of watermelon",)),
    Kind("bunch of grapes", "grapes", (), (), "purple", ("purple", "red", "green", "blue", "pink"), (240, 300)),
    Kind("strawberry", "strawberry", (), ("ripe", "red")),
    Kind("pineapple", "pineapple", (), ("ripe",)),
    Kind("pumpkin", "jack-o-lantern", (), ("orange",)),
    Kind("carrot", "carrot", (), ("orange",)),
    Kind("mushroom", "mushroom", (), ("spotted",), "red", BRIGHT, (345, 25), repaint=True),
    Kind("cake", "birthday-cake", ("birthday cake",)),
    Kind("cupcake", "cupcake"),
    Kind("donut", "doughnut", (), ("round",)),
    Kind("ice cream", "soft-ice-cream", ("ice cream cone",)),
    Kind("hamburger", "hamburger", ("burger",)),
    Kind("pizza", "pizza", ("slice of pizza",)),
    Kind("piece of cheese", "cheese-wedge", (), ("yellow",)),
    Kind("teapot", "teapot", (), (), "red", MANY, (345, 20)),
)

_MORE = (
    Kind("tangerine", "tangerine"),
    Kind("peach", "peach", (), ("ripe",)),
    Kind("pair of cherries", "cherries", (), ("red",)),
    Kind("kiwi fruit", "kiwi-fruit"),
    Kind("coconut", "coconut"),
    Kind("avocado", "avocado", (), ("green",)),
    Kind("tomato", "tomato", (), ("red",)),
    Kind("eggplant", "eggplant", (), ("purple",)),
    Kind("ear of corn", "ear-of-corn", (), ("yellow",)),
    Kind("chili pepper", "hot-pepper", (), ("red",)),
    Kind("broccoli", "broccoli", (), ("green",)),
    Kind("croissant", "croissant"),
    Kind("loaf of bread", "bread"),
    Kind("baguette", "baguette-bread"),
    Kind("pretzel", "pretzel", (), ("brown",)),
    Kind("stack of pancakes", "pancakes"),
    Kind("waffle", "waffle"),
    Kind("hot dog", "hot-dog"),
    Kind("sandwich", "sandwich"),
    Kind("taco", "taco"),
    Kind("box of fries", "french-fries"),
    Kind("box of popcorn", "popcorn"),
    Kind("frying pan", "cooking"),
    Kind("cookie", "cookie", (), ("round",)),
    Kind("piece of cake", "shortcake"),
    Kind("pie", "pie"),
    Kind("bar of chocolate", "chocolate-bar"),
    Kind("lollipop", "lollipop"),
    Kind("pot of honey", "honey-pot"),
    Kind("glass of milk", "glass-of-milk"),
    Kind("cup of coffee", "hot-beverage"),
    Kind("glass of wine", "wine-glass"),
    Kind("mug of beer", "beer-mug"),
)

FOOD = (*_CORE, *(kind.outside_core() for kind in _MORE))
