"""The ids that tie a COCO file together."""

from __future__ import annotations

from ..foreign.entries import whole_number

Key = int | str
"""An id: a whole number, or a text that is none."""


def key_of(value: object) -> Key | None:
    """An id by one rule wherever it stands: 7, 7.0 and "7" are the same, other texts are ids as they are."""
    if isinstance(value, str):
        text = value.strip()
        number = whole_number(text)
        return number if number is not None and str(number) == text else text or None
    number = whole_number(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else number
