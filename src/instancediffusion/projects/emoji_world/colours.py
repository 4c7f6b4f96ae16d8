"""Named colours, and recolouring that keeps the shading of a sprite."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (228, 36, 34),
    "orange": (250, 130, 16),
    "yellow": (252, 212, 28),
    "green": (62, 168, 56),
    "blue": (38, 104, 228),
    "purple": (134, 62, 190),
    "pink": (250, 132, 184),
    "brown": (128, 80, 48),
    "white": (243, 243, 245),
    "black": (52, 52, 56),
}
"""Colour name -> sRGB, 0..255: what a lit, unshaded part of a recoloured object looks like."""

PAINT = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "white", "black")
"""Names shared by the object classes that can be recoloured freely."""

MANY = tuple(colour for colour in PAINT if colour != "brown")

BRIGHT = tuple(colour for colour in PAINT if colour not in ("brown", "black"))

PETALS = tuple(colour for colour in PAINT if colour not in ("green", "brown"))
"""Flowers: a green one could be taken for its own leaves."""

_HUE_EDGE = 12.0
"""Degrees over which the tint fades out beyond its hues: edges between parts are mixtures of both."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def hue_saturation(rgb: Floats) -> tuple[Floats, Floats]:
    """Compute hue and saturation as in HSV.

    Args:
        rgb: (..., 3), 0..1.

    Returns:
        Hue in degrees [0, 360) and saturation 0..1, each (...). Greys have hue 0.
    """
    high, low = rgb.max(-1), rgb.min(-1)
    spread = high - low
    safe = np.where(spread > 0, spread, 1.0)
    r, g, b = (rgb[..., i] for i in range(3))
    hue = np.where(high == r, (g - b) / safe % 6.0, np.where(high == g, (b - r) / safe + 2.0, (r - g) / safe + 4.0))
    hue = np.where(spread > 0, hue * 60.0, 0.0) % 360.0
    return hue.astype(np.float32), (spread / np.maximum(high, 1e-6)).astype(np.float32)


def tint_weight(rgb: Floats, tint: tuple[float, float]) -> Floats:
    """Return how much each pixel belongs to the part that is recoloured.

    Args:
        rgb: (H, W, 3), 0..1.
        tint: hues in degrees, from and to.

    Returns:
        (H, W), 0..1: 1 inside the hues, falling to 0 beside them and for greys.
    """
    hue, saturation = hue_saturation(rgb)
    low, high = tint
    half = ((high - low) % 360.0) / 2.0
    distance = np.abs((hue - (low + half) + 180.0) % 360.0 - 180.0) - half
    in_hues = np.clip(1.0 - distance / _HUE_EDGE, 0.0, 1.0)
    coloured = np.clip((saturation - 0.12) / 0.15, 0.0, 1.0)
    return np.asarray(in_hues * coloured, np.float32)


def recolour(rgba: NDArray[np.uint8], tint: tuple[float, float], colour: str) -> NDArray[np.uint8]:
    """Give the tinted part of a sprite a named colour.

    The luma of a pixel, relative to the part's usual luma, is its shading: darker pixels scale the new colour down (the
    hue stays exact), lighter ones move it towards white.

    Args:
        rgba: (H, W, 4), straight (not premultiplied) alpha.
        tint: hues in degrees of the part, from and to.
        colour: a name out of `COLOURS`.

    Returns:
        A new (H, W, 4) array with the same alpha.
    """
    rgb = rgba[..., :3].astype(np.float32) / 255.0
    weight = tint_weight(rgb, tint)
    inside = (weight > 0.9) & (rgba[..., 3] > 200)
    if not inside.any():
        return rgba.copy()
    luma = rgb @ _LUMA
    reference = float(np.quantile(luma[inside], 0.6))
    shade = luma / max(reference, 1e-3)
    target = np.array(COLOURS[colour], np.float32) / 255.0
    dark = np.clip(shade, 0.0, 1.0)[..., None] ** 0.8 * target
    light = np.clip((shade - 1.0) * 0.5, 0.0, 0.8)[..., None]
    painted = dark + light * (1.0 - target)
    mixed = rgb + weight[..., None] * (painted - rgb)
    result = rgba.copy()
    result[..., :3] = np.clip(mixed * 255.0 + 0.5, 0, 255).astype(np.uint8)
    return result
