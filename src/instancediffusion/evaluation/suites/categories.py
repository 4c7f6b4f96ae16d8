"""Names of classes: which of a detector's labels a scene's category is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

_SAME = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "diningtable": "dining table",
    "pottedplant": "potted plant",
    "tvmonitor": "tv",
    "television": "tv",
    "mobile phone": "cell phone",
    "hairdryer": "hair drier",
    "hair dryer": "hair drier",
    "donut": "doughnut",
}
"""Other names of COCO's classes, as Pascal VOC and lists of detectors write them; both sides are brought to one."""


def plain(name: str) -> str:
    """Return a name in lower case, words separated by single spaces, synonyms of COCO's classes as one."""
    text = " ".join(re.sub(r"[_\-\s]+", " ", name).casefold().split())
    return _SAME.get(text, text)


def label_of(text: str, labels: Sequence[str]) -> str | None:
    """Return the label that a category or a caption names, or None.

    It is the label of the same name, else the one label whose words stand in the text; of "hot dog" and "dog" it is
    the longer. A text that names two labels names none.
    """
    return _label_of(text, tuple(labels))


@lru_cache(maxsize=4096)
def _label_of(text: str, labels: tuple[str, ...]) -> str | None:
    known = {plain(label): label for label in labels}
    wanted = plain(text)
    if wanted in known:
        return known[wanted]
    found = [name for name in known if name and _says(wanted, name)]
    longest = [name for name in found if not any(name != other and _says(other, name) for other in found)]
    return known[longest[0]] if len(longest) == 1 else None


def _says(text: str, words: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None
