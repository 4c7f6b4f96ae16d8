"""The backgrounds of the built-in world: a name, the phrases of a prompt, and the function that paints it.

The horizon and the exact colours vary from picture to picture.
"""

from dataclasses import dataclass

from .grounds import Draw, land, plain
from .indoors import bricks, kitchen, planks, stage
from .outdoors import beach, forest, night, road, sea, sky, space, sunset, underwater


@dataclass(frozen=True)
class Background:
    """A named background.

    Attributes:
        name: the name in the ground truth.
        phrases: how a prompt says that something is in front of it ("in a meadow").
        draw: paints it.
    """

    name: str
    phrases: tuple[str, ...]
    draw: Draw


BACKGROUNDS: tuple[Background, ...] = (
    Background("sky", ("in the sky", "in the blue sky", "with clouds behind"), sky),
    Background(
        "meadow",
        ("in a meadow", "on the grass", "in a green meadow", "in a lush green park"),
        land(
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
        land(
            ((172, 202, 230), (222, 234, 246)), ((240, 245, 250), (216, 228, 242)), (0.45, 0.62), grain=3.0, relief=0.05
        ),
    ),
    Background(
        "desert",
        ("in the desert", "on the sand"),
        land(((122, 190, 240), (232, 232, 220)), ((238, 206, 140), (214, 168, 100)), (0.45, 0.62), relief=0.07),
    ),
    Background("night", ("at night", "under the stars", "in the dark night"), night),
    Background("sea", ("at sea", "on the sea", "on the blue ocean"), sea),
    Background("underwater", ("under water", "under the sea"), underwater),
    Background(
        "room",
        ("in a room", "in a living room", "on the floor of a room"),
        planks(((240, 228, 206), (228, 212, 188)), ((188, 138, 92), (150, 104, 66)), (0.6, 0.72), True),
    ),
    Background(
        "table",
        ("on a table", "on a wooden table"),
        planks(((176, 196, 200), (198, 212, 212)), ((198, 146, 98), (164, 112, 70)), (0.42, 0.56), False),
    ),
    Background("sunset", ("at sunset", "in the evening"), sunset),
    Background("road", ("on a road", "on a street"), road),
    Background(
        "hills",
        ("in the hills", "in front of hills"),
        land(
            ((186, 214, 236), (236, 240, 232)),
            ((112, 168, 120), (60, 112, 72)),
            (0.32, 0.46),
            relief=0.14,
            cells=(8, 6),
            grain=8.0,
        ),
    ),
    Background("forest", ("in the forest", "in a forest"), forest),
    Background("beach", ("on the beach", "at the beach"), beach),
    Background(
        "autumn",
        ("in autumn",),
        land(
            ((176, 206, 232), (240, 232, 214)),
            ((214, 150, 62), (176, 104, 40)),
            (0.44, 0.6),
            clouds=0.5,
            cells=(36, 24),
            grain=9.0,
        ),
    ),
    Background("space", ("in space", "in outer space"), space),
    Background("kitchen", ("in a kitchen", "on a tiled floor"), kitchen),
    Background("brick wall", ("in front of a brick wall", "at a brick wall"), bricks),
    Background("stage", ("on a stage", "on stage"), stage),
    Background("white background", ("on a white background", "on plain white"), plain((247, 247, 247))),
    Background("gray background", ("on a gray background", "on plain gray"), plain((150, 152, 156))),
    Background("pink background", ("on a pink background", "on plain pink"), plain((250, 206, 220))),
    Background("blue background", ("on a light blue background", "on plain light blue"), plain((178, 216, 246))),
    Background("yellow background", ("on a light yellow background", "on plain light yellow"), plain((252, 240, 184))),
    Background("green background", ("on a light green background", "on plain light green"), plain((196, 230, 190))),
)
