"""Colours that distinguish neighbours in a list."""

import colorsys

Colour = tuple[int, int, int]

INK: Colour = (32, 33, 36)
FAINT: Colour = (110, 114, 120)
RULE: Colour = (205, 208, 212)
PAPER: Colour = (255, 255, 255)
CANVAS: Colour = (246, 246, 243)

_GOLDEN = 0.6180339887498949
_SHADES = ((0.85, 0.78), (0.95, 0.55), (0.55, 0.88), (0.75, 0.66))


def instance_colour(index: int) -> Colour:
    """Return the colour (red, green, blue in 0..255) of the instance with this index."""
    saturation, value = _SHADES[index % len(_SHADES)]
    red, green, blue = colorsys.hsv_to_rgb((0.02 + index * _GOLDEN) % 1.0, saturation, value)
    return (round(255 * red), round(255 * green), round(255 * blue))


def text_colour(background: Colour) -> Colour:
    """Return black or white, whichever reads better on a background (relative luminance, WCAG 2)."""
    linear = [(c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4) for c in background]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return INK if luminance > 0.25 else PAPER
