"""How large a picture is."""

from __future__ import annotations

import math

from instancediffusion.errors import SettingsError
from instancediffusion.scene import Scene


def native_picture_size(scene: Scene, native_side_px: int, multiple_px: int) -> tuple[int, int]:
    """The size a model draws a scene at when none is asked for.

    The picture has as many pixels as those the model was trained on and the shape of the scene's canvas; the scene's
    own pixel counts do not matter, since all its lengths are fractions.

    Args:
        scene: gives the shape.
        native_side_px: side of the square pictures the model was trained on.
        multiple_px: both sides are rounded to a multiple of this.

    Returns:
        (height, width) in pixels.
    """
    stretch = math.sqrt(scene.width / scene.height)

    def rounded(side: float) -> int:
        return max(multiple_px, round(side / multiple_px) * multiple_px)

    return rounded(native_side_px / stretch), rounded(native_side_px * stretch)


def picture_size(
    scene: Scene,
    height: int | None,
    width: int | None,
    *,
    native_side_px: int,
    latent_px: int,
    multiple_px: int,
) -> tuple[int, int]:
    """(height, width) of a picture in pixels: what was asked for, else the native size.

    Args:
        scene: gives the shape where it is not asked for.
        height: the height asked for, or None.
        width: the width asked for, or None. If only one side is given, the other follows the scene's shape.
        native_side_px: side of the square pictures the model was trained on.
        latent_px: image pixels in the side of one latent pixel; sizes asked for must be multiples of it.
        multiple_px: sizes that are derived are multiples of it.

    Raises:
        SettingsError: a side is not a multiple of `latent_px`.
    """
    for name, side in (("height", height), ("width", width)):
        if side is not None and side % latent_px:
            low = max(side - side % latent_px, latent_px)
            raise SettingsError(f"{name}: {side} is not a multiple of {latent_px}; use {low} or {low + latent_px}")
    if height is None and width is None:
        return native_picture_size(scene, native_side_px, multiple_px)
    aspect = scene.width / scene.height
    if height is None and width is not None:
        height = max(multiple_px, round(width / aspect / multiple_px) * multiple_px)
    elif width is None and height is not None:
        width = max(multiple_px, round(height * aspect / multiple_px) * multiple_px)
    return int(height or 0), int(width or 0)
