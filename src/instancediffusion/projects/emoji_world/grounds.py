"""What backgrounds are painted with: ramps of colour, smooth noise, a line of ground.

A `Draw` is a function of a generator and a size (height, width); it returns (H, W, 3) float32, 0..255.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]
Colour = tuple[int, int, int]
Draw = Callable[[np.random.Generator, int, int], Floats]


def ramp(stops: Sequence[tuple[float, Colour]], rows: Floats) -> Floats:
    """Interpolate colours down the rows: (H, 3)."""
    at = [stop for stop, _ in stops]
    return np.stack([np.interp(rows, at, [c[i] for _, c in stops]) for i in range(3)], 1).astype(np.float32)


def noise(rng: np.random.Generator, height: int, width: int, cells: tuple[int, int]) -> Floats:
    """Draw smooth noise of about unit range around 0, (H, W): random values on a `cells` grid, interpolated."""
    grid = rng.random(cells, dtype=np.float32) * 2.0 - 1.0
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


def centres(count: int) -> Floats:
    """Return the middles of `count` pixels in a row, as fractions of the whole."""
    return ((np.arange(count) + 0.5) / count).astype(np.float32)


def cover(picture: Floats, below: Floats, edge: Floats) -> None:
    """Paint the ground (H, 1, 3) below a line (W,), fractions of the height, in place; the edge is a pixel soft."""
    height = picture.shape[0]
    start = max(0, int(float(edge.min()) * height) - 2)
    covered = np.clip((centres(height)[start:, None] - edge[None, :]) * np.float32(height / 1.5) + 0.5, 0.0, 1.0)
    picture[start:] += covered[..., None].astype(np.float32) * (below[start:] - picture[start:])


def plain(colour: Colour) -> Draw:
    """One colour, a touch lighter in the middle."""

    def draw(rng: np.random.Generator, height: int, width: int) -> Floats:
        centre = rng.uniform(0.35, 0.65, 2)
        y, x = centres(height) - centre[0], centres(width) - centre[1]
        light = 6.0 - 26.0 * (y[:, None] ** 2 + x[None, :] ** 2).astype(np.float32)
        shift = rng.uniform(-5.0, 5.0)
        lit = np.array(colour, np.float32) + (light + np.float32(shift))[..., None]
        return np.asarray(np.clip(lit, 0.0, 255.0), np.float32)

    return draw


def land(
    sky: tuple[Colour, Colour],
    ground: tuple[Colour, Colour],
    horizon: tuple[float, float],
    *,
    grain: float = 5.0,
    cells: tuple[int, int] = (24, 12),
    relief: float = 0.03,
    clouds: float = 0.0,
) -> Draw:
    """A sky above a ground with grain, and a softly rolling horizon between them (`relief`, fraction of the height)."""

    def draw(rng: np.random.Generator, height: int, width: int) -> Floats:
        line = rng.uniform(*horizon)
        rows = centres(height)
        above = ramp([(0.0, sky[0]), (line, sky[1])], rows)[:, None, :]
        below = ramp([(line, ground[0]), (1.0, ground[1])], rows)[:, None, :]
        picture = np.empty((height, width, 3), np.float32)
        picture[:] = above
        if clouds:
            sky_rows = min(height, int((line + relief) * height) + 2)
            white = np.clip(noise(rng, sky_rows, width, (5, 4)) - 0.15, 0.0, 1.0)[..., None] * np.float32(clouds)
            picture[:sky_rows] += (255.0 - above[:sky_rows]) * white
        cover(picture, below, line + relief * noise(rng, 1, width, (1, 5))[0])
        if grain:
            start = min(height - 1, int((line + relief) * height))
            picture[start:] += (grain * noise(rng, height - start, width, cells))[..., None]
        return picture

    return draw
