"""Text that has to fit a width."""

from __future__ import annotations

from .painter import text_width

_DOTS = "…"


def one_line(text: str) -> str:
    """Return text with every run of white space as one blank, and without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def shorten(text: str, width: float, size: float) -> str:
    """Return as much of a line as fits a width in pixels, dots marking what is left out."""
    if text_width(text, size) <= width:
        return text
    low, high = 0, min(len(text), 1000)
    while low < high:
        middle = (low + high + 1) // 2
        fits = text_width(text[:middle].rstrip() + _DOTS, size) <= width
        low, high = (middle, high) if fits else (low, middle - 1)
    return text[:low].rstrip() + _DOTS


def wrap(text: str, width: float, size: float, max_lines: int) -> list[str]:
    """Return text as lines that fit a width in pixels, at most `max_lines`, the last shortened if need be."""
    words, lines, line = one_line(text[:4000]).split(" "), list[str](), ""
    for index, word in enumerate(words):
        longer = f"{line} {word}" if line else word
        if text_width(longer, size) <= width:
            line = longer
            continue
        if len(lines) == max_lines - 1:
            return [*lines, shorten(" ".join([*([line] if line else []), *words[index:]]), width, size)]
        if line:
            lines.append(line)
        line = word
        if len(lines) == max_lines - 1 or text_width(word, size) <= width:
            continue
        lines.append(shorten(word, width, size))
        line = ""
    return [*lines, shorten(line, width, size)] if line else lines
