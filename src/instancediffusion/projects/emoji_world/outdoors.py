"""Backgrounds under the open sky, in the water and in space."""

import numpy as np

from .grounds import Floats, centres, cover, land, noise, ramp


def sky(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Blue sky with soft clouds."""
    air = ramp([(0.0, (96, 170, 238)), (1.0, (196, 228, 250))], centres(height))[:, None, :]
    white = np.clip(noise(rng, height, width, (8, 4)) - 0.1, 0.0, 1.0)[..., None] * 0.9
    return np.asarray(air + (252.0 - air) * white, np.float32)


def sunset(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Purple to orange, with a dark ground."""
    line = rng.uniform(0.72, 0.86)
    rows = centres(height)
    stops = [(0.0, (84, 62, 130)), (0.45 * line, (206, 98, 128)), (0.8 * line, (250, 150, 92)), (line, (254, 206, 122))]
    picture = np.repeat(ramp(stops, rows)[:, None, :], width, 1)
    below = ramp([(line, (86, 58, 74)), (1.0, (52, 38, 58))], rows)[:, None, :]
    cover(picture, below, line + 0.03 * noise(rng, 1, width, (1, 5))[0])
    return picture


def night(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Dark blue with stars, over a darker ground."""
    picture = land(((14, 20, 52), (44, 54, 104)), ((34, 48, 50), (20, 30, 34)), (0.72, 0.86), grain=3.0)(
        rng, height, width
    )
    count = max(8, round(height * width / 700))
    y, x = (rng.random(count) * 0.66 * height).astype(int), (rng.random(count) * width).astype(int)
    picture[y, x] = np.array((236, 236, 214), np.float32) * rng.uniform(0.55, 1.0, (count, 1)).astype(np.float32)
    return picture


def sea(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Sky over open water with level waves."""
    calm = land(((142, 200, 244), (214, 236, 250)), ((58, 150, 196), (18, 84, 150)), (0.34, 0.5), grain=0.0, relief=0.0)
    picture = calm(rng, height, width)
    start = height // 2
    swell = (
        noise(rng, height - start, width, (20, 5)) * (np.minimum(centres(height)[start:] - 0.5, 0.3) * 46.0)[:, None]
    )
    picture[start:] += swell[..., None]
    return picture


def underwater(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Blue-green water with rays of light, and sand at the bottom."""
    line = rng.uniform(0.82, 0.92)
    rows = centres(height)
    water = ramp([(0.0, (70, 196, 208)), (line, (14, 88, 134))], rows)[:, None, :]
    rays = noise(rng, 1, width, (1, 9)) * (16.0 * (1.0 - rows))[:, None]
    sand = ramp([(line, (150, 158, 128)), (1.0, (184, 176, 132))], rows)[:, None, :]
    picture = np.asarray(water + rays[..., None], np.float32)
    cover(picture, sand, line + 0.025 * noise(rng, 1, width, (1, 5))[0])
    return picture


def road(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Asphalt with a dashed line, grass behind, sky above."""
    picture = land(((150, 204, 244), (220, 238, 250)), ((122, 182, 88), (104, 166, 76)), (0.4, 0.5), clouds=0.6)(
        rng, height, width
    )
    rows = centres(height)
    top = rng.uniform(0.56, 0.64)
    start = int(top * height)
    road = ramp([(top, (124, 126, 132)), (1.0, (92, 94, 100))], rows[start:])[:, None, :]
    picture[start:] = road + (4.0 * noise(rng, height - start, width, (14, 30)))[..., None]
    line = np.flatnonzero(np.abs(rows - (top + 1.0) / 2.0) < 0.014)
    dashes = np.flatnonzero((centres(width) * 4.0 + rng.random()) % 1.0 < 0.55)
    picture[np.ix_(line, dashes)] = 236.0
    return picture


def forest(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Pale trunks in the mist between leaves above and grass below."""
    line = rng.uniform(0.62, 0.74)
    rows = centres(height)
    picture = np.repeat(ramp([(0.0, (120, 164, 118)), (line, (190, 212, 172))], rows)[:, None, :], width, 1)
    trunk = np.array((116, 98, 78), np.float32)
    for middle, thick, mist in rng.random((9, 3)):
        left, right = (round((middle + side * (0.012 + 0.02 * thick)) * width) for side in (-1, 1))
        window = picture[:, max(left, 0) : max(right, left + 1, 1)]
        window += (trunk - window) * np.float32(0.3 + 0.45 * mist)
    leaves = ramp([(0.0, (48, 96, 44)), (0.4, (92, 146, 70))], rows)[::-1, None, :]
    cover(picture[::-1], leaves, 0.8 + 0.08 * noise(rng, 1, width, (1, 9))[0])
    cover(picture, ramp([(line, (112, 164, 78)), (1.0, (70, 120, 50))], rows)[:, None, :], _uneven(rng, line, width))
    start = int(line * height)
    picture[start:] += (6.0 * noise(rng, height - start, width, (24, 16)))[..., None]
    return picture


def beach(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Sky, a strip of sea with foam, and sand."""
    line, shore = rng.uniform(0.32, 0.42), rng.uniform(0.54, 0.64)
    rows = centres(height)
    picture = np.repeat(ramp([(0.0, (120, 190, 244)), (line, (212, 236, 250))], rows)[:, None, :], width, 1)
    cover(picture, ramp([(line, (44, 140, 196)), (shore, (96, 206, 214))], rows)[:, None, :], np.full(width, line))
    edge = _uneven(rng, shore, width)
    cover(picture, np.full((height, 1, 3), 248.0, np.float32), edge - 0.012)
    cover(picture, ramp([(shore, (222, 192, 136)), (1.0, (246, 220, 164))], rows)[:, None, :], edge + 0.012)
    start = int((shore + 0.05) * height)
    picture[start:] += (5.0 * noise(rng, height - start, width, (30, 24)))[..., None]
    return picture


def space(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Black with stars and a faint violet cloud."""
    picture = np.empty((height, width, 3), np.float32)
    picture[:] = (10, 8, 24)
    cloud = np.clip(noise(rng, height, width, (4, 4)), 0.0, 1.0)[..., None]
    picture += cloud * np.array((60, 24, 86), np.float32)
    count = max(10, round(height * width / 320))
    y, x = (rng.random(count) * height).astype(int), (rng.random(count) * width).astype(int)
    picture[y, x] = np.array((240, 240, 255), np.float32) * rng.uniform(0.45, 1.0, (count, 1)).astype(np.float32)
    return picture


def _uneven(rng: np.random.Generator, line: float, width: int) -> Floats:
    """Return a softly rolling line (W,) around a height."""
    return np.asarray(line + 0.03 * noise(rng, 1, width, (1, 5))[0], np.float32)
