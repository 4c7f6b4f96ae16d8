"""What a detector is to look for: the noun phrase of a caption.

Open-vocabulary detectors are trained on short names ("yellow pear"). A longer caption makes them look for everything it
mentions: "a polar bear standing majestically on an iceberg" finds the iceberg, too.
"""

from __future__ import annotations

import re

_ARTICLES = ("a", "an", "the")
_VIEW = re.compile(r"^(?:\w+ ){0,2}(?:view|picture|photo|photograph|image|painting) of ", re.IGNORECASE)
_ENDS = frozenset(
    "about above across against along among around at before behind below beneath beside between beyond by during for "
    "from in inside into near next on onto outside over past through to toward towards under upon with within without "
    "that which who while facing is are".split()
)
"""Words that end a noun phrase. "of" is none: the head of a donkey is no donkey."""
_STATES = frozenset(
    "built covered covering cut floating flying hanging holding jumping leaning looking lying made placed playing "
    "positioned providing resting running sitting standing surrounded swimming walking wearing".split()
)
"""Words that say what an object does, if they stand behind it."""


def noun_phrase(caption: str) -> str:
    """Return the noun of a caption with what stands before it: "a yellow pear, partly covered" gives "yellow pear".

    A rule of thumb for English; what it cannot make out it leaves as it is.
    """
    text = _VIEW.sub("", re.split(r"[;:()]|\s[-–—]\s", caption.strip().rstrip("."))[0])
    parts = [part.split() for part in text.split(",")]
    words = _without_article(parts[0])
    if len(words) == 1:  # "a large, sturdy table": the comma stands between adjectives
        words += [word for part in parts[1:] for word in part]
    end = next((n for n, word in enumerate(words) if n and word.lower() in _ENDS), len(words))
    words = words[:end]
    state = next((n for n in range(1, len(words)) if _is_state(words, n)), len(words))
    kept = words[:state]
    while state < len(words) and len(kept) > 1 and kept[-1].endswith("ly"):  # "an igloo neatly built"
        kept.pop()
    return " ".join(kept) or caption.strip()


def _without_article(words: list[str]) -> list[str]:
    return words[1:] if words and words[0].lower() in _ARTICLES else words


def _is_state(words: list[str], index: int) -> bool:
    """Tell whether a word says what those before it do: "bear standing majestically", not "big standing bear"."""
    return words[index].lower() in _STATES and all(word.endswith("ly") for word in words[index + 1 :])
