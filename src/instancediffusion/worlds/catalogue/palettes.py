"""Sets of colours that kinds share."""

PAINT = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "white", "black")
"""What can be painted."""

MANY = tuple(colour for colour in PAINT if colour != "brown")

BRIGHT = tuple(colour for colour in PAINT if colour not in ("brown", "black"))

PETALS = tuple(colour for colour in PAINT if colour not in ("green", "brown"))
"""Flowers: a green one could be taken for its own leaves."""
