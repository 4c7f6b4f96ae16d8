"""Weights in texts, `(a red balloon:1.5)`, and other programs' syntax that is not understood here."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from instancediffusion.errors import Problem, SceneWarning

if TYPE_CHECKING:
    from .model import Scene

_WEIGHT = re.compile(r":\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*\)")
_LIMIT = 10.0

_FOREIGN: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("choices such as {a|b}", re.compile(r"\{[^{}]*\|[^{}]*\}"), "write one scene for each"),
    ("<lora:...>", re.compile(r"<(?:lora|lyco|hypernet):[^<>]*>"), "load it with load_lora_weights or --lora"),
    ("[from:to:when]", re.compile(r"\[[^\[\]:]*:[^\[\]:]*:\s*[\d.]+\s*\]"), "the prompt stays the same in all steps"),
    ("[a|b]", re.compile(r"\[[^\[\]]*\|[^\[\]]*\]"), "the prompt stays the same in all steps"),
    ("[less]", re.compile(r"(?<!\\)\[[^\[\]:|]+\]"), "write (less:0.9)"),
    ("((more))", re.compile(r"(?<!\\)\(\([^()]*\)\)"), "write (more:1.2)"),
    ("__wildcard__", re.compile(r"__\w+?__"), "write the word itself"),
    ("weights such as word++ or word--", re.compile(r"[\w)](?:\+\+|--)+(?=\s|,|$)"), "write (word:1.2)"),
    ("weights such as (words)1.2", re.compile(r"(?<!\\)\([^()]+\)\d+(?:\.\d+)?(?=\s|,|$)"), "write (words:1.2)"),
    ("BREAK and AND", re.compile(r"\bBREAK\b|(?<=\s)AND(?=\s)"), "give instances with captions of their own"),
    ("embedding:name", re.compile(r"\bembedding:\w"), "load it with load_textual_inversion, and write its token"),
)


def weighted_parts(text: str) -> list[tuple[str, float]]:
    r"""Cut a text into parts of one weight.

    `(words:1.5)` weighs words by 1.5; inside one another weights multiply. Brackets without a number are brackets, and
    so is one after a backslash: `\(`.

    Returns:
        Parts in order; those of weight 1 are taken as written. Joined, they are the text without the weights.
    """
    parts: list[tuple[str, float]] = []
    _read(text, 1.0, parts)
    joined: list[tuple[str, float]] = []
    for words, weight in parts:
        if joined and joined[-1][1] == weight:
            joined[-1] = (joined[-1][0] + words, weight)
        elif words:
            joined.append((words, weight))
    return joined


def _read(text: str, weight: float, parts: list[tuple[str, float]]) -> None:
    """Add the parts of a text that stands in brackets of this weight."""
    start = position = 0
    while position < len(text):
        if text[position] == "\\" and text[position + 1 : position + 2] in ("(", ")"):
            parts.append((text[start:position], weight))
            start, position = position + 1, position + 2
            continue
        if text[position] == "(" and (found := _group(text, position)) is not None:
            end, inner, factor = found
            parts.append((text[start:position], weight))
            _read(inner, weight * factor, parts)
            start = position = end
            continue
        position += 1
    parts.append((text[start:], weight))


def _group(text: str, start: int) -> tuple[int, str, float] | None:
    """Where the group ends whose bracket opens at `start`, what is in it, and its weight; None if it has none."""
    depth, position = 0, start
    while position < len(text):
        if text[position] == "\\":
            position += 2
            continue
        if text[position] == "(":
            depth += 1
        elif text[position] == ":" and depth == 1 and (found := _WEIGHT.match(text, position)):
            return found.end(), text[start + 1 : position], max(-_LIMIT, min(float(found[1]), _LIMIT))
        elif text[position] == ")":
            depth -= 1
            if depth == 0:
                return None
        position += 1
    return None


NOT_UNDERSTOOD = "another program's syntax, which is read as words"
"""Part of the message of every problem that is about such syntax."""


def foreign_syntax(text: str) -> list[tuple[str, str]]:
    """What a text holds of other programs' syntax, each with what to do instead."""
    return [(name, fix) for name, pattern, fix in _FOREIGN if pattern.search(text)]


def syntax_problems(scene: Scene, lead: str = "$") -> Iterator[Problem]:
    """A warning for each text of a scene that holds other programs' syntax; `lead` is the scene's path in its file."""
    texts = [(f"{lead}.prompt", scene.prompt), (f"{lead}.negative_prompt", scene.negative_prompt or "")]
    texts += [(f"{lead}.instances[{index}].caption", item.caption) for index, item in enumerate(scene.instances)]
    for path, text in texts:
        for name, fix in foreign_syntax(text):
            yield Problem(path, f"has {name}, {NOT_UNDERSTOOD}", fix, "warning")


def warn_of_foreign_syntax(texts: Sequence[str], *, stacklevel: int = 2) -> None:
    """Issue a `SceneWarning` for every text that holds other programs' syntax; it is read as words."""
    for text in dict.fromkeys(texts):
        if found := foreign_syntax(text):
            listed = "; ".join(f"{name} ({fix})" for name, fix in found)
            warnings.warn(
                f"{text[:60]!r}: {listed} is not understood here and is read as words",
                SceneWarning,
                stacklevel=stacklevel + 1,
            )
