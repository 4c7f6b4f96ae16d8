"""A labelled data set that looks more like photographs than the drawn world does, from packages with free licences.

    python benchmarks/photo_composites.py photos                    # 2,400 pictures as COCO, with masks and depth order
    instancediffusion data split photos parts --part train=0.9 --part val=0.1

What it is: the world's sprites (Noto Emoji) on crops of seven photographs that scikit-image ships (public domain or
CC0), shaded by one light for each picture, seen through a small perspective, with blur, vignette, white balance, sensor
noise and JPEG. What it is not: photographs of objects. It has the backgrounds, the light and the faults of photographs,
so that an adapter cannot learn it from the world's own pictures, and exact boxes, masks and orders.

Needs `instancediffusion world build` once, and `scikit-image`.
"""

from __future__ import annotations

import argparse
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from instancediffusion.geometry import mask_box
from instancediffusion.projects.emoji_world import World, WorldSpec
from instancediffusion.projects.emoji_world.art import load_art
from instancediffusion.projects.emoji_world.backgrounds import Background
from instancediffusion.projects.emoji_world.catalogue import KINDS
from instancediffusion.projects.emoji_world.coco_export import export_coco
from instancediffusion.projects.emoji_world.samples import WorldInstance, WorldSample
from instancediffusion.projects.emoji_world.sprites import SpriteBook

Floats = npt.NDArray[np.float32]
OBJECTS = (
    *("panda", "fox", "frog", "ladybug", "strawberry"),
    *("pumpkin", "hamburger", "donut", "soccer ball", "clock"),
)
PHOTOGRAPHS = {
    "brick": ("in front of a brick wall", "at a brick wall"),
    "grass": ("on the grass", "in the grass"),
    "gravel": ("on the ground", "on gravel"),
    "chelsea": ("in front of a cat's fur", "on fur"),
    "coffee": ("on a wooden table", "on a table"),
    "rocket": ("in the evening", "at sunset"),
    "hubble_deep_field": ("in space", "in outer space"),
}
LEAST_VISIBLE_PX = 40
"""Pixels that have to be left of an object after the picture was warped, else it is not annotated."""


def photograph(name: str, phrases: tuple[str, ...]) -> Background:
    """A background that is a crop of one of scikit-image's photographs, at its own brightness and tint."""
    from skimage import data

    stored = np.asarray(Image.fromarray(getattr(data, name)()).convert("RGB"))

    def draw(rng: np.random.Generator, height: int, width: int) -> Floats:
        side = int(rng.uniform(0.35, 0.9) * min(stored.shape[:2]))
        y, x = (int(rng.integers(0, limit - side + 1)) for limit in stored.shape[:2])
        crop = Image.fromarray(stored[y : y + side, x : x + side]).resize((width, height), Image.Resampling.LANCZOS)
        if rng.random() < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        tint = rng.uniform(0.7, 1.25) * rng.uniform(0.85, 1.15, 3)
        return np.clip(np.asarray(crop, np.float32) * tint.astype(np.float32), 0, 255)

    return Background(name, phrases, draw)


class PhotoWorld(World):
    """The world's objects on photographs, as a camera might see them."""

    def sample(self, seed: int, order: object = None) -> WorldSample:
        """See `World.sample`; boxes and masks are those of the warped picture."""
        made = super().sample(seed, order)  # type: ignore[arg-type]
        rng = np.random.Generator(np.random.PCG64([18, seed]))
        image = shaded(made.image.astype(np.float32), made.instances, rng)
        warp = perspective(rng, image.shape[0])
        instances = [one for item in made.instances if (one := _warped(item, warp)) is not None]
        ranks = sorted(item.z_order for item in instances)
        kept = tuple(replace(item, z_order=ranks.index(item.z_order)) for item in instances)
        picture = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
        warped = picture.transform(picture.size, Image.Transform.PERSPECTIVE, warp, Image.Resampling.BICUBIC)
        return replace(made, image=photographed(warped, rng), instances=kept)


def shaded(image: Floats, instances: tuple[WorldInstance, ...], rng: np.random.Generator) -> Floats:
    """Light every object from one side, as a rounded body would be, and let its rim fall into shadow."""
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.45)
    side = image.shape[0]
    ys, xs = np.mgrid[0:side, 0:side] / side
    out = image.copy()
    for item in instances:
        x0, y0, x1, y1 = item.box
        u, v = (xs - (x0 + x1) / 2) / (x1 - x0) * 2, (ys - (y0 + y1) / 2) / (y1 - y0) * 2
        light = 1 + strength * (u * np.cos(angle) + v * np.sin(angle)) - 0.35 * strength * (u * u + v * v)
        out[item.visible] *= light[item.visible][:, None].astype(np.float32)
    return out


def perspective(rng: np.random.Generator, side: int) -> tuple[float, ...]:
    """Coefficients of PIL's perspective transform: the canvas shows a quadrilateral a little inside the picture."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * side
    inside = corners + rng.uniform(0, 0.07, (4, 2)) * side * np.where(corners > 0, -1, 1)
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, inside, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return tuple(np.linalg.solve(np.array(rows, float), np.array(values, float)).tolist())


def _warped(item: WorldInstance, warp: tuple[float, ...]) -> WorldInstance | None:
    """An object in the warped picture; None if too little of it is left."""

    def moved(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        image = Image.fromarray(mask.astype(np.uint8) * 255)
        return np.asarray(image.transform(image.size, Image.Transform.PERSPECTIVE, warp)) > 127

    amodal, visible = moved(item.amodal), moved(item.visible)
    if visible.sum() < LEAST_VISIBLE_PX:
        return None
    return replace(item, amodal=amodal, visible=visible, box=np.asarray(mask_box(amodal), np.float32), parts={})


def photographed(picture: Image.Image, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Blur, vignette, white balance, exposure, noise, JPEG."""
    pixels = np.asarray(picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.9))), np.float32) / 255
    y, x = (np.linspace(-1, 1, count) for count in pixels.shape[:2])
    vignette = 1 - rng.uniform(0, 0.3) * (y[:, None] ** 2 + x[None, :] ** 2)[..., None] / 2
    lit = (pixels * vignette * rng.uniform(0.9, 1.1, 3)).clip(0, 1) ** rng.uniform(0.8, 1.25)
    noisy = lit * 255 + rng.normal(0, rng.uniform(0, 7), pixels.shape)
    kept = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(kept, "JPEG", quality=int(rng.integers(55, 95)))
    return np.asarray(Image.open(kept).convert("RGB"))


def photo_world(size: int = 160, objects: tuple[str, ...] = OBJECTS) -> PhotoWorld:
    """One or two large objects of ten classes on a photograph."""
    spec = WorldSpec(
        size=size, min_objects=1, max_objects=2, min_scale=0.4, max_scale=0.9,
        objects=objects, art_sets=("noto",), part_share=0.0, native_share=1.0,
    )  # fmt: skip
    kinds = tuple(kind for kind in KINDS if kind.name in objects)
    grounds = [photograph(name, phrases) for name, phrases in PHOTOGRAPHS.items()]
    return PhotoWorld(SpriteBook(kinds, load_art(KINDS, None, kinds)), spec, grounds)


def main() -> None:
    """Write the data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--count", type=int, default=2400)
    parser.add_argument("--size", type=int, default=160, help="Side of the pictures, pixels.")
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    export_coco(photo_world(options.size), options.output, options.count, first_seed=options.first_seed)
    print(f"{options.output}: {options.count} pictures")


if __name__ == "__main__":
    main()
