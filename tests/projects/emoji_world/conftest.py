import numpy as np
import pytest

from instancediffusion.projects.emoji_world import BACKGROUNDS, ObjectKind, SpriteBook, World, WorldSpec

KINDS = (
    ObjectKind("disc", "disc", ("circle",), ("round",), "red", ("red", "green", "blue", "white", "black"), (345, 15)),
    ObjectKind(
        "arrow",
        "arrow",
        (),
        ("pointed",),
        facing="left",
        parts={"tip": (0.0, 0.35, 0.3, 0.65), "left end": (0.0, 0.4, 0.1, 0.6), "right end": (0.9, 0.0, 1.0, 1.0)},
    ),
    ObjectKind("box", "box", ("crate",), ("square",)),
    ObjectKind("ring", "ring", stands=False),
)


def drawings() -> dict[str, np.ndarray]:
    y, x = (np.mgrid[:64, :64] + 0.5) / 32 - 1
    shapes = {
        "disc": (np.hypot(x, y) < 1, (230, 40, 30)),
        "arrow": (np.abs(y) < (x + 1) / 2, (40, 160, 60)),
        "box": (np.abs(x) < 2, (120, 120, 130)),
        "ring": ((np.hypot(x, y) < 1) & (np.hypot(x, y) > 0.7), (240, 200, 60)),
    }
    art = {}
    for name, (filled, colour) in shapes.items():
        pixels = np.zeros((64, 64, 4), np.uint8)
        shade = 1 - 0.25 * (y > 0.3)
        pixels[..., :3] = np.array(colour) * shade[..., None]
        pixels[..., 3] = filled * 255
        art[name] = pixels
    art["box"] = art["box"][:40]
    return art


@pytest.fixture(scope="session")
def art():
    return drawings()


@pytest.fixture(scope="session")
def make_world(art):
    def make(**spec) -> World:
        return World(SpriteBook(KINDS, art), WorldSpec(**{"size": 64, "part_share": 0.0, **spec}), BACKGROUNDS)

    return make


@pytest.fixture(scope="session")
def world(make_world):
    return make_world()


@pytest.fixture(scope="session")
def samples(world):
    return [world.sample(seed) for seed in range(400)]
