"""A sample of a world: the picture and the exact ground truth for every object in it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from instancediffusion.errors import SettingsError
from instancediffusion.geometry import scribble_from_mask
from instancediffusion.scene import KINDS, Box, Instance, Mask, Point, Scene, Scribble

from .kinds import Facing


@dataclass(frozen=True, eq=False)
class WorldInstance:
    """One object of a picture, or a part of one that is an instance of its own.

    A part ("the head of the dog") has a rank right in front of its object's, in every depth order, so that ranks are a
    permutation over all instances; it is painted with its object, hides nothing of it, and its masks are its object's
    within its box.

    Attributes:
        caption: one of many true captions.
        name: the class name; for a part the class name and the part's ("dog head").
        colour: its named colour, for sprites that have one; else None.
        facing: its orientation, for sprites that have one; else None.
        z_order: 0 for the one painted first (the farthest), then 1, 2, ...
        box: (4,) float32, x0 y0 x1 y1 as fractions of the canvas, tight around the amodal mask.
        amodal: (H, W) bool, the whole silhouette, hidden parts included.
        visible: (H, W) bool, what no nearer object covers.
        parts: name of a part -> its box like `box`, hidden or not, for sprites whose parts are annotated.
        drawing: the key of the sprite it was made from, see `Drawing.icon`.
        style: the word for the sprite's style, see `ArtSet.style`.
        captions: several true captions: `caption`, three from bare to full in everyday words, three that state style,
            colour and orientation; of a part, fewer.
        part_of: index of its object among the instances, for a part; else None.
    """

    caption: str
    name: str
    colour: str | None
    facing: Facing | None
    z_order: int
    box: NDArray[np.float32]
    amodal: NDArray[np.bool_]
    visible: NDArray[np.bool_]
    parts: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    drawing: str = ""
    style: str | None = None
    captions: tuple[str, ...] = ()
    part_of: int | None = None


@dataclass(frozen=True, eq=False)
class WorldSample:
    """A picture and its ground truth.

    Attributes:
        image: (H, W, 3) uint8, sRGB.
        prompt: a true caption of the picture.
        background: the background's name.
        instances: the objects, in no particular order (see `z_order`), then their parts.
        seed: what it was drawn from.
        prompts: several true captions of the picture, `prompt` the first.
    """

    image: NDArray[np.uint8]
    prompt: str
    background: str
    instances: tuple[WorldInstance, ...]
    seed: int
    prompts: tuple[str, ...] = ()

    def to_scene(self, kinds: Collection[str] = ("box",), *, order: bool = True) -> Scene:
        """Write the sample as a scene that asks for this picture.

        Args:
            kinds: the types of location each instance states, out of "box", "point", "scribble", "mask".
                Points and scribbles lie inside the visible silhouette; boxes and masks are amodal.
            order: state the depth order.

        Raises:
            SettingsError: an unknown type of location, or none.
        """
        if not kinds or set(kinds) - set(KINDS):
            raise SettingsError(f"kinds is {tuple(kinds)!r}; name one or more of {', '.join(KINDS)}")
        instances = []
        for index, item in enumerate(self.instances):
            rng = np.random.Generator(np.random.PCG64([self.seed, index]))
            point, scribble = None, None
            if "point" in kinds:
                point = Point(*inner_point(item.visible))
            if "scribble" in kinds:
                stroke = scribble_from_mask(item.visible, rng)
                scribble = Scribble(tuple((float(x), float(y)) for x, y in stroke))
            instances.append(
                Instance(
                    item.caption,
                    box=Box(*(float(v) for v in item.box)) if "box" in kinds else None,
                    point=point,
                    scribble=scribble,
                    mask=Mask.from_array(item.amodal) if "mask" in kinds else None,
                    z_order=item.z_order if order else None,
                )
            )
        height, width = self.image.shape[:2]
        return Scene(self.prompt, tuple(instances), width=width, height=height)


def inner_point(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the pixel of a mask that is nearest to its centre of mass, as (x, y) fractions of the canvas."""
    ys, xs = np.nonzero(mask)
    nearest = int(np.argmin((ys - ys.mean()) ** 2 + (xs - xs.mean()) ** 2))
    return float(xs[nearest] + 0.5) / mask.shape[1], float(ys[nearest] + 0.5) / mask.shape[0]
