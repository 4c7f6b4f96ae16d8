"""Seeds as pages read them."""

from __future__ import annotations


def exact_seed(seed: int) -> int | str:
    """A seed as a page can read it: JavaScript's numbers are exact up to 2**53 - 1, so larger ones go as text."""
    return seed if seed < 2**53 else str(seed)
