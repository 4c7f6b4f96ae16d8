"""What training and evaluation need of a world: pictures of objects of its classes, with exact ground truth.

Protocols only: `instancediffusion.projects.emoji_world` is one such world, of which this package uses nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from instancediffusion.scene import Scene


class ObjectDrawing(Protocol):
    """One sprite of a class."""

    @property
    def parts(self) -> Mapping[str, tuple[float, float, float, float]]:
        """Name of a part -> its box in the sprite, fractions."""

    @property
    def style(self) -> str:
        """The word for its style."""


class ObjectClass(Protocol):
    """A class of objects, and its words."""

    @property
    def name(self) -> str:
        """The name that counts as ground truth."""

    @property
    def words(self) -> tuple[str, ...]:
        """The name and its synonyms."""

    @property
    def nouns(self) -> tuple[str, ...]:
        """Every word for it."""

    @property
    def traits(self) -> tuple[str, ...]:
        """Adjectives that are true of it."""

    @property
    def colours(self) -> tuple[str, ...]:
        """The colours it can be given; none if it keeps its own."""

    @property
    def facings(self) -> Sequence[str]:
        """The orientations it can have; none if it has no side view."""

    @property
    def drawings(self) -> Sequence[ObjectDrawing]:
        """Its sprites."""


class Background(Protocol):
    """What is behind the objects."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def phrases(self) -> tuple[str, ...]:
        """How a prompt says it."""


class DrawnObject(Protocol):
    """One object of a picture."""

    @property
    def name(self) -> str:
        """Name of its class."""

    @property
    def caption(self) -> str:
        """A true caption."""

    @property
    def captions(self) -> tuple[str, ...]:
        """Several true captions; may be none."""

    @property
    def colour(self) -> str | None:
        """Its named colour, if it has one."""

    @property
    def facing(self) -> str | None:
        """Its orientation, if it has one."""

    @property
    def z_order(self) -> int:
        """0 for the farthest, then 1, 2, ..."""

    @property
    def box(self) -> NDArray[np.float32]:
        """(4,) x0 y0 x1 y1, fractions of the canvas; of all of it, hidden parts too."""

    @property
    def amodal(self) -> NDArray[np.bool_]:
        """(H, W) all of it, hidden parts too."""

    @property
    def visible(self) -> NDArray[np.bool_]:
        """(H, W) what no nearer object covers."""


class DrawnSample(Protocol):
    """A picture and its ground truth."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) sRGB."""

    @property
    def prompt(self) -> str:
        """A true caption of the picture."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """Several true captions of it; may be none."""

    @property
    def seed(self) -> int:
        """What it was drawn from."""

    @property
    def instances(self) -> Sequence[DrawnObject]:
        """The objects, in no particular order."""

    def to_scene(self, kinds: Collection[str] = ("box",), *, order: bool = True) -> Scene:
        """Write it as a scene that asks for this picture, by these kinds of location."""


class World(Protocol):
    """Draws a picture for every seed."""

    @property
    def kinds(self) -> Sequence[ObjectClass]:
        """The classes that occur."""

    @property
    def backgrounds(self) -> Sequence[Background]:
        """The backgrounds that occur."""

    def sample(self, seed: int, order: Literal["reversed"] | None = None) -> DrawnSample:
        """Draw the picture of a seed, or the same one in the reversed depth order."""

    def vocabulary(self) -> Collection[Any]:
        """Every word of its captions and prompts."""
