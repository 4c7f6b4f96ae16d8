"""The words a model knows, and what to say of others."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Sequence

from instancediffusion.errors import SceneWarning

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


def unknown_words(text: str, vocabulary: Collection[str]) -> list[str]:
    """The words of a text that are not in a vocabulary, each once, in lower case."""
    words = dict.fromkeys(_WORD.findall(text.lower()))
    return [word for word in words if word not in vocabulary]


def warn_of_unknown_words(texts: Sequence[str], vocabulary: Collection[str], *, stacklevel: int = 2) -> None:
    """Issue a `SceneWarning` for every text with words that the model never saw.

    Args:
        texts: prompts and captions.
        vocabulary: every word the model was trained on; empty means that it may know any.
        stacklevel: as for `warnings.warn`.
    """
    if not vocabulary:
        return
    for text in dict.fromkeys(texts):
        if unknown := unknown_words(text, vocabulary):
            named = ", ".join(repr(word) for word in unknown)
            warnings.warn(
                f"{text[:60]!r}: the model has never seen {named} and draws something else there; "
                "`instancediffusion doctor --vocabulary` lists what mini knows",
                SceneWarning,
                stacklevel=stacklevel + 1,
            )
