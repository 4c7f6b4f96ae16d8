"""A small world of our own, and judges that need no training."""

import numpy as np
import pytest
import torch

from instancediffusion.evaluation import Seen, SeenInstance
from instancediffusion.geometry import mask_box
from instancediffusion.projects.emoji_world import BACKGROUNDS, ObjectKind, SpriteBook, World, WorldSpec
from instancediffusion.projects.emoji_world import KINDS as CATALOGUE

KINDS = (
    ObjectKind("disc", "disc", ("circle",), (), "red", ("red", "green", "blue"), (345, 15), stands=False),
    ObjectKind("arrow", "arrow", ("pointer",), facing="left"),
    ObjectKind("gem", "gem", (), ("shiny",)),
)


def small_world(size=64, **spec) -> World:
    """Three drawings: a disc in three colours, an arrow with a side, a gem."""
    y, x = (np.mgrid[:64, :64] + 0.5) / 32 - 1
    shapes = {
        "disc": (np.hypot(x, y) < 1, (230, 40, 30)),
        "arrow": (np.abs(y) < (x + 1) / 2, (40, 160, 60)),
        "gem": (np.abs(x) + np.abs(y) < 1, (250, 220, 60)),
    }
    art = {}
    for name, (filled, colour) in shapes.items():
        art[name] = np.zeros((64, 64, 4), np.uint8)
        art[name][..., :3], art[name][..., 3] = colour, filled * 255
    options = {"max_objects": 3, "min_scale": 0.3, "max_scale": 0.7, **spec}
    return World(SpriteBook(KINDS, art), WorldSpec(size=size, **options), BACKGROUNDS)


def seen_of(sample, keep=lambda item: True) -> Seen:
    """What a perfect judge sees in a sample."""
    labels = np.zeros(sample.image.shape[:2], np.uint8)
    found = []
    for item in filter(keep, sample.instances):
        found.append(SeenInstance(item.name, item.colour, item.facing, np.asarray(item.box, float), 1.0))
        labels[item.visible] = len(found)
    return Seen(labels, tuple(found), np.asarray(sample.image, np.float32).mean((0, 1)))


class Oracle:
    """Knows some pictures by heart, and sees nothing in others."""

    kinds = CATALOGUE

    def __init__(self, samples) -> None:
        self._known = {sample.image.tobytes(): seen_of(sample) for sample in samples}
        self.looked_at = 0

    def look(self, images):
        self.looked_at += len(images)
        nothing = Seen(np.zeros((64, 64), np.uint8), (), np.zeros(3, np.float32))
        return [self._known.get(np.asarray(image).tobytes(), nothing) for image in images]

    def describe(self):
        return {"name": "oracle"}


def blocks(*described, size=100) -> Seen:
    """A picture of upright blocks: (name, x0, y0, x1, y1) in pixels, later ones in front."""
    labels = np.zeros((size, size), np.uint8)
    for number, (_, x0, y0, x1, y1) in enumerate(described):
        labels[y0:y1, x0:x1] = number + 1
    instances = []
    for name, *box in described:
        mask = np.zeros((size, size), bool)
        mask[box[1] : box[3], box[0] : box[2]] = True
        instances.append(SeenInstance(name, None, None, np.array(mask_box(mask)), 1.0))
    return Seen(labels, tuple(instances))


@pytest.fixture(scope="session")
def world():
    return small_world()


@pytest.fixture(scope="session")
def samples(world):
    return [world.sample(seed) for seed in range(40)]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def taught(task, steps, rate):
    """The network of a task after some steps, all of one cycle of the learning rate."""
    torch.set_num_threads(1)
    adam = torch.optim.AdamW(task.network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, rate, total_steps=steps)
    for step in range(steps):
        loss, _ = task.loss(step)
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.network.parameters(), 1.0)
        adam.step()
        schedule.step()
    return task.network
