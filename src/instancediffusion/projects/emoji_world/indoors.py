"""Backgrounds with walls: floors, tables, tiles, bricks, a stage."""

import numpy as np

from .grounds import Colour, Draw, Floats, centres, noise, ramp


def planks(
    wall: tuple[Colour, Colour], wood: tuple[Colour, Colour], horizon: tuple[float, float], skirting: bool
) -> Draw:
    """A wall over wood whose lines run to the viewer (a floor) or across (a table)."""

    def draw(rng: np.random.Generator, height: int, width: int) -> Floats:
        line = rng.uniform(*horizon)
        rows = centres(height)
        above = np.broadcast_to(ramp([(0.0, wall[0]), (line, wall[1])], rows)[:, None, :], (height, width, 3)).copy()
        below = ramp([(line, wood[0]), (1.0, wood[1])], rows)[:, None, :]
        depth = np.maximum(rows - line, 1e-3) / (1.0 - line)
        if skirting:
            x = (centres(width)[None, :] - 0.5) / (0.35 + depth[:, None]) * 5.0 + rng.random()
            seam = np.abs(x - np.round(x)) * (0.35 + depth[:, None]) / 5.0 * width < 0.6
            board = (rows > line - 0.035) & (rows < line)
            above[board] = np.array((246, 243, 238), np.float32)
        else:
            across = np.sqrt(depth)[:, None] * 4.0
            seam = np.abs(across - np.round(across)) * height * 0.08 < 0.45
            seam = np.broadcast_to(seam, (height, width))
        grain = noise(rng, height, width, (20, 6)) * 6.0 - 20.0 * seam
        return np.where((rows > line)[:, None, None], below + grain[..., None], above).astype(np.float32)

    return draw


def kitchen(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Small pale tiles on the wall, large checks on the floor that shrink towards the wall."""
    line = rng.uniform(0.56, 0.68)
    rows, columns = centres(height), centres(width)
    tile = np.array((226, 240, 238), np.float32)
    picture = np.empty((height, width, 3), np.float32)
    picture[:] = tile
    grout = (np.mod(rows / 0.11 + rng.random(), 1.0) < 0.07)[:, None] | (np.mod(columns / 0.11, 1.0) < 0.07)[None, :]
    picture[grout] = (200, 218, 218)
    below = rows > line
    near = 0.35 + (rows[below] - line) / (1.0 - line)
    across = np.floor((columns[None, :] - 0.5) / near[:, None] * 4.0 + rng.random())
    down = np.floor(4.0 * np.log(near / 0.35))[:, None]
    dark = (np.mod(across + down, 2.0) == 0.0)[..., None]
    picture[below] = np.where(dark, np.array((150, 178, 182)), np.array((238, 240, 234)))
    return picture


def bricks(rng: np.random.Generator, height: int, width: int) -> Floats:
    """A wall of bricks in rows, each a little different, above a pavement."""
    line = rng.uniform(0.78, 0.86)
    rows, columns = centres(height), centres(width)
    down, across = rows / 0.075, columns / 0.16
    row = np.floor(down).astype(int)
    shifted = across[None, :] + 0.5 * (row % 2)[:, None]
    column = np.floor(shifted).astype(int)
    shade = rng.uniform(-14.0, 14.0, (row.max() + 1, column.max() + 1)).astype(np.float32)
    picture = np.array((178, 96, 78), np.float32) + shade[row[:, None], column][..., None]
    joint = (np.mod(down, 1.0) < 0.1)[:, None] | (np.mod(shifted, 1.0) < 0.05)
    picture[joint] = (206, 190, 176)
    below = rows > line
    pavement = ramp([(line, (150, 148, 146)), (1.0, (176, 174, 170))], rows[below])[:, None, :]
    picture[below] = pavement + (4.0 * noise(rng, int(below.sum()), width, (8, 24)))[..., None]
    return np.asarray(picture, np.float32)


def stage(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Red curtains in folds above a wooden floor."""
    line = rng.uniform(0.7, 0.8)
    rows, columns = centres(height), centres(width)
    folds = np.sin(columns * rng.uniform(44.0, 60.0) + 2.0 * noise(rng, 1, width, (1, 6))[0]).astype(np.float32)
    cloth = np.array((150, 26, 40), np.float32) * (1.0 + 0.24 * folds)[None, :, None]
    picture = np.repeat(cloth, height, 0) * (0.72 + 0.32 * rows)[:, None, None]
    below = rows > line
    wood = ramp([(line, (140, 92, 56)), (1.0, (196, 142, 92))], rows[below])[:, None, :]
    depth = 0.5 + (rows[below] - line) / (1.0 - line)
    seams = np.mod((columns[None, :] - 0.5) / depth[:, None] * 7.0 + 0.3, 1.0) < 0.05
    picture[below] = wood - 22.0 * seams[..., None]
    return np.asarray(picture, np.float32)
