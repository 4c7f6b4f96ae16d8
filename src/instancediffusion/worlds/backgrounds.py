"""Backgrounds: soft gradients, a line of ground, a little texture, all drawn here.

Each is a function of a generator and a size; it returns (H, W, 3) float32, 0..255. The horizon and the exact colours
vary from picture to picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]
Colour = tuple[int, int, int]
Draw = Callable[[np.random.Generator, int, int], Floats]


@dataclass(frozen=True)
class Background:
    """A named background.

    Attributes:
        name: the name that counts as truth.
        phrases: how a prompt says that something is in front of it ("in a meadow").
        draw: paints it.
    """

    name: str
    phrases: tuple[str, ...]
    draw: Draw


def _ramp(stops: Sequence[tuple[float, Colour]], rows: Floats) -> Floats:
    """Interpolate colours down the rows: (H, 3)."""
    at = [stop for stop, _ in stops]
    return np.stack([np.interp(rows, at, [c[i] for _, c in stops]) for i in range(3)], 1).astype(np.float32)


def _noise(rng: np.random.Generator, height: int, width: int, cells: tuple[int, int]) -> Floats:
    """Draw smooth noise of about unit range around 0, (H, W): random values on `cells` (down, across), interpolated."""
    grid = rng.random(cells, dtype=np.float32) * 2.0 - 1.0
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


def _rows(height: int) -> Floats:
    return ((np.arange(height) + 0.5) / height).astype(np.float32)


def _cover(picture: Floats, below: Floats, edge: Floats) -> None:
    """Paint the ground (H, 1, 3) below a line (W,), in shares of the height, in place; the line is a pixel soft."""
    height = picture.shape[0]
    start = max(0, int(float(edge.min()) * height) - 2)
    covered = np.clip((_rows(height)[start:, None] - edge[None, :]) * np.float32(height / 1.5) + 0.5, 0.0, 1.0)
    picture[start:] += covered[..., None].astype(np.float32) * (below[start:] - picture[start:])


def _plain(colour: Colour) -> Draw:
    """One colour, a touch lighter in the middle."""

    def draw(rng: np.random.Generator, height: int, width: int) -> Floats:
        centre = rng.uniform(0.35, 0.65, 2)
        y, x = _rows(height) - centre[0], _rows(width) - centre[1]
        light = 6.0 - 26.0 * (y[:, None] ** 2 + x[None, :] ** 2).astype(np.float32)
        shift = rng.uniform(-5.0, 5.0)
        lit = np.array(colour, np.float32) + (light + np.float32(shift))[..., None]
        return np.asarray(np.clip(lit, 0.0, 255.0), np.float32)

    return draw


def _land(
    sky: tuple[Colour, Colour],
    ground: tuple[Colour, Colour],
    horizon: tuple[float, float],
    *,
    grain: float = 5.0,
    cells: tuple[int, int] = (24, 12),
    relief: float = 0.03,
    clouds: float = 0.0,
) -> Draw:
    """A sky above a ground, with a softly rolling horizon (`relief`, share of the height) and grain on the ground."""

    def draw(rng: np.random.Generator, height: int, width: int) -> Floats:
        line = rng.uniform(*horizon)
        rows = _rows(height)
        above = _ramp([(0.0, sky[0]), (line, sky[1])], rows)[:, None, :]
        below = _ramp([(line, ground[0]), (1.0, ground[1])], rows)[:, None, :]
        picture = np.empty((height, width, 3), np.float32)
        picture[:] = above
        if clouds:
            seen = min(height, int((line + relief) * height) + 2)
            cover = np.clip(_noise(rng, seen, width, (5, 4)) - 0.15, 0.0, 1.0)[..., None] * np.float32(clouds)
            picture[:seen] += (255.0 - above[:seen]) * cover
        _cover(picture, below, line + relief * _noise(rng, 1, width, (1, 5))[0])
        if grain:
            start = min(height - 1, int((line + relief) * height))
            picture[start:] += (grain * _noise(rng, height - start, width, cells))[..., None]
        return picture

    return draw


def _sky(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Blue sky with soft clouds."""
    air = _ramp([(0.0, (96, 170, 238)), (1.0, (196, 228, 250))], _rows(height))[:, None, :]
    cover = np.clip(_noise(rng, height, width, (8, 4)) - 0.1, 0.0, 1.0)[..., None] * 0.9
    return np.asarray(air + (252.0 - air) * cover, np.float32)


def _sunset(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Purple to orange, with a dark ground."""
    line = rng.uniform(0.72, 0.86)
    rows = _rows(height)
    stops = [(0.0, (84, 62, 130)), (0.45 * line, (206, 98, 128)), (0.8 * line, (250, 150, 92)), (line, (254, 206, 122))]
    picture = np.repeat(_ramp(stops, rows)[:, None, :], width, 1)
    below = _ramp([(line, (86, 58, 74)), (1.0, (52, 38, 58))], rows)[:, None, :]
    _cover(picture, below, line + 0.03 * _noise(rng, 1, width, (1, 5))[0])
    return picture


def _night(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Dark blue with stars, over a darker ground."""
    picture = _land(((14, 20, 52), (44, 54, 104)), ((34, 48, 50), (20, 30, 34)), (0.72, 0.86), grain=3.0)(
        rng, height, width
    )
    count = max(8, round(height * width / 700))
    y, x = (rng.random(count) * 0.66 * height).astype(int), (rng.random(count) * width).astype(int)
    picture[y, x] = np.array((236, 236, 214), np.float32) * rng.uniform(0.55, 1.0, (count, 1)).astype(np.float32)
    return picture


def _sea(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Sky over open water with level waves."""
    calm = _land(
        ((142, 200, 244), (214, 236, 250)), ((58, 150, 196), (18, 84, 150)), (0.34, 0.5), grain=0.0, relief=0.0
    )
    picture = calm(rng, height, width)
    start = height // 2
    swell = _noise(rng, height - start, width, (20, 5)) * (np.minimum(_rows(height)[start:] - 0.5, 0.3) * 46.0)[:, None]
    picture[start:] += swell[..., None]
    return picture


def _underwater(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Blue-green water with rays of light, and sand at the bottom."""
    line = rng.uniform(0.82, 0.92)
    rows = _rows(height)
    water = _ramp([(0.0, (70, 196, 208)), (line, (14, 88, 134))], rows)[:, None, :]
    rays = _noise(rng, 1, width, (1, 9)) * (16.0 * (1.0 - rows))[:, None]
    sand = _ramp([(line, (150, 158, 128)), (1.0, (184, 176, 132))], rows)[:, None, :]
    picture = np.asarray(water + rays[..., None], np.float32)
    _cover(picture, sand, line + 0.025 * _noise(rng, 1, width, (1, 5))[0])
    return picture


def _planks(
    wall: tuple[Colour, Colour], wood: tuple[Colour, Colour], horizon: tuple[float, float], skirting: bool
) -> Draw:
    """A wall over wood whose lines run to the viewer (a floor) or across (a table)."""

    def draw(rng: np.random.Generator, height: int, width: int) -> Floats:
        line = rng.uniform(*horizon)
        rows = _rows(height)
        above = np.broadcast_to(_ramp([(0.0, wall[0]), (line, wall[1])], rows)[:, None, :], (height, width, 3)).copy()
        below = _ramp([(line, wood[0]), (1.0, wood[1])], rows)[:, None, :]
        depth = np.maximum(rows - line, 1e-3) / (1.0 - line)
        if skirting:
            x = (_rows(width)[None, :] - 0.5) / (0.35 + depth[:, None]) * 5.0 + rng.random()
            seam = np.abs(x - np.round(x)) * (0.35 + depth[:, None]) / 5.0 * width < 0.6
            board = (rows > line - 0.035) & (rows < line)
            above[board] = np.array((246, 243, 238), np.float32)
        else:
            across = np.sqrt(depth)[:, None] * 4.0
            seam = np.abs(across - np.round(across)) * height * 0.08 < 0.45
            seam = np.broadcast_to(seam, (height, width))
        grain = _noise(rng, height, width, (20, 6)) * 6.0 - 20.0 * seam
        return np.where((rows > line)[:, None, None], below + grain[..., None], above).astype(np.float32)

    return draw


def _road(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Asphalt with a dashed line, grass behind, sky above."""
    picture = _land(((150, 204, 244), (220, 238, 250)), ((122, 182, 88), (104, 166, 76)), (0.4, 0.5), clouds=0.6)(
        rng, height, width
    )
    rows = _rows(height)
    top = rng.uniform(0.56, 0.64)
    start = int(top * height)
    road = _ramp([(top, (124, 126, 132)), (1.0, (92, 94, 100))], rows[start:])[:, None, :]
    picture[start:] = road + (4.0 * _noise(rng, height - start, width, (14, 30)))[..., None]
    line = np.flatnonzero(np.abs(rows - (top + 1.0) / 2.0) < 0.014)
    dashes = np.flatnonzero((_rows(width) * 4.0 + rng.random()) % 1.0 < 0.55)
    picture[np.ix_(line, dashes)] = 236.0
    return picture


BACKGROUNDS: tuple[Background, ...] = (
    Background("sky", ("in the sky", "in the blue sky", "with clouds behind"), _sky),
    Background(
        "meadow",
        ("in a meadow", "on the grass", "in a green meadow", "in a lush green park"),
        _land(
            ((138, 200, 246), (214, 236, 252)),
            ((138, 200, 88), (88, 158, 56)),
            (0.42, 0.62),
            clouds=0.8,
            cells=(36, 24),
        ),
    ),
    Background(
        "snow",
        ("in the snow", "on the snow", "in winter"),
        _land(
            ((172, 202, 230), (222, 234, 246)), ((240, 245, 250), (216, 228, 242)), (0.45, 0.62), grain=3.0, relief=0.05
        ),
    ),
    Background(
        "desert",
        ("in the desert", "on the sand"),
        _land(((122, 190, 240), (232, 232, 220)), ((238, 206, 140), (214, 168, 100)), (0.45, 0.62), relief=0.07),
    ),
    Background("night", ("at night", "under the stars", "in the dark night"), _night),
    Background("sea", ("at sea", "on the sea", "on the blue ocean"), _sea),
    Background("underwater", ("under water", "under the sea"), _underwater),
    Background(
        "room",
        ("in a room", "in a living room", "on the floor of a room"),
        _planks(((240, 228, 206), (228, 212, 188)), ((188, 138, 92), (150, 104, 66)), (0.6, 0.72), True),
    ),
    Background(
        "table",
        ("on a table", "on a wooden table"),
        _planks(((176, 196, 200), (198, 212, 212)), ((198, 146, 98), (164, 112, 70)), (0.42, 0.56), False),
    ),
    Background("sunset", ("at sunset", "in the evening"), _sunset),
    Background("road", ("on a road", "on a street"), _road),
    Background(
        "hills",
        ("in the hills", "in front of hills"),
        _land(
            ((186, 214, 236), (236, 240, 232)),
            ((112, 168, 120), (60, 112, 72)),
            (0.32, 0.46),
            relief=0.14,
            cells=(8, 6),
            grain=8.0,
        ),
    ),
    Background("white background", ("on a white background", "on plain white"), _plain((247, 247, 247))),
    Background("gray background", ("on a gray background", "on plain gray"), _plain((150, 152, 156))),
    Background("pink background", ("on a pink background", "on plain pink"), _plain((250, 206, 220))),
    Background("blue background", ("on a light blue background", "on plain light blue"), _plain((178, 216, 246))),
    Background("yellow background", ("on a light yellow background", "on plain light yellow"), _plain((252, 240, 184))),
    Background("green background", ("on a light green background", "on plain light green"), _plain((196, 230, 190))),
)
