"""Judges that know constructed pictures, whose scores can be worked out by hand."""

import numpy as np
import pytest
from PIL import Image

from instancediffusion import Box, Instance, Mask, Point, Scene, Scribble
from instancediffusion.datasets import Example
from instancediffusion.evaluation.suites import Case, Detection, Models

SIZE = 100


def block(x0, y0, x1, y1, size=SIZE):
    """A mask with a block set, corners in pixels."""
    mask = np.zeros((size, size), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def told(caption, x0, y0, x1, y1, *, mask=True, point=None, stroke=None):
    return Instance(
        caption,
        box=Box(x0 / SIZE, y0 / SIZE, x1 / SIZE, y1 / SIZE),
        mask=Mask.from_array(block(x0, y0, x1, y1)) if mask else None,
        point=Point(*point) if point else None,
        scribble=Scribble(stroke) if stroke else None,
    )


def seen(label, x0, y0, x1, y1, score=0.9, mask=True):
    box = np.array([x0, y0, x1, y1]) / SIZE
    return Detection(label, box, score, block(x0, y0, x1, y1) if mask else None)


def case(name, *instances, categories=()):
    scene = Scene("a picture", instances, SIZE, SIZE)
    return Case(Example(scene, None, f"{name}.png", name, tuple(categories)), name)


class KnowingDetector:
    """Says of each picture, by its name, what it was made to say."""

    def __init__(self, found, labels=("dog", "cat", "car", "hot dog")):
        self.found, self.labels = found, list(labels)

    def __call__(self, image, name):
        return self.found[name]

    def describe(self):
        return {"name": "knows"}


COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}


class ColourClip:
    """Compares the mean colour of a crop with the colours that texts name."""

    def similarities(self, images, texts):
        rows = []
        for image in images:
            colour = np.asarray(image, float).reshape(-1, 3).mean(0)
            wanted = [next((c for name, c in COLOURS.items() if name in text.split()), (1, 1, 1)) for text in texts]
            rows.append([colour @ np.array(c) / np.linalg.norm(c) / (np.linalg.norm(colour) + 1e-9) for c in wanted])
        return np.array(rows)

    def describe(self):
        return {"name": "colours"}


@pytest.fixture
def pictures(tmp_path):
    """A folder of plain pictures by name."""

    def save(*names, colour=(90, 90, 90)):
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        for name in names:
            Image.new("RGB", (SIZE, SIZE), colour).save(folder / f"{name}.png")
        return folder

    return save


def models(**roles):
    return Models(opened=roles)
