"""A little English: articles, plurals, lists, counts, what parts are called."""

from collections.abc import Sequence

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")

_IRREGULAR = {
    **{noun: noun for noun in ("bison", "deer", "fish", "moose", "pufferfish", "sheep", "shrimp", "squid")},
    **{"mouse": "mice", "goose": "geese", "cactus": "cacti", "die": "dice", "tooth": "teeth"},
    **{"leaf": "leaves", "loaf": "loaves", "wolf": "wolves"},
    **{noun: f"{noun}es" for noun in ("potato", "tomato", "volcano")},
}
_IRREGULAR |= {noun: noun for noun in ("goldfish", "trout", "salmon", "tuna", "carp", "cod", "herring")}
_IRREGULAR |= {"calf": "calves", "hoof": "hooves"}
_NO_ARTICLE = frozenset(
    (
        *("artwork", "bread", "cattle", "clouds", "coffee", "flowers", "foliage", "footwear", "grapes"),
        *("headgear", "leaves", "scissors", "shears", "sunshine", "swine", "waterfowl"),
    )
)
_SOUNDS_LIKE_A = ("uni", "eu", "ufo")
_SOUNDS_LIKE_AN = ("hour",)


def with_article(phrase: str) -> str:
    """Put "a" or "an" before a phrase, or nothing before what has no singular ("scissors")."""
    if phrase.partition(" of ")[0].split(" ")[-1] in _NO_ARTICLE:
        return phrase
    vowel = phrase[0] in "aeiou" and not phrase.startswith(_SOUNDS_LIKE_A)
    return f"an {phrase}" if vowel or phrase.startswith(_SOUNDS_LIKE_AN) else f"a {phrase}"


def plural(noun: str) -> str:
    """Return the plural of a noun, whose last word changes ("polar bears"), or the first before "of"."""
    if " of " in noun:
        head, _, rest = noun.partition(" of ")
        return f"{plural(head)} of {rest}"
    *lead, last = noun.split(" ")
    if last in _NO_ARTICLE:
        return noun
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif last.endswith(("s", "x", "z", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        last = f"{last[:-1]}ies"
    else:
        last += "s"
    return " ".join([*lead, last])


def counted(phrase: str, count: int) -> str:
    """Return "a cat" for one, "two cats" for two."""
    if count == 1:
        return with_article(phrase)
    return f"{NUMBERS[count] if count < len(NUMBERS) else 'many'} {plural(phrase)}"


def listed(phrases: Sequence[str]) -> str:
    """Join phrases with commas and a last "and"; none give an empty text."""
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}" if len(phrases) > 1 else "".join(phrases)


PART_WORDS = {
    "head": ("head", "face", "head"),
    "mouth": ("mouth", "muzzle", "snout", "nose and mouth"),
    "beak": ("beak", "bill"),
    "ear": ("ear",),
    "eye": ("eye",),
    "tail": ("tail",),
    "wing": ("wing",),
    "fin": ("fin",),
    "paw": ("paw", "foot"),
    "wheel": ("wheel", "tire"),
    "door": ("door",),
    "claw": ("claw", "pincer"),
    "shell": ("shell",),
}
"""What a part may be called; the plain word for it is the key."""


def part_word(name: str) -> str:
    """Return what a part is, without its side: "left ear" is an "ear"."""
    return name.removeprefix("left ").removeprefix("right ")
