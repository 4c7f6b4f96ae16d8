"""What a picture was to show: the truth it is scored against."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from instancediffusion.data.drawn_world import DrawnObject, DrawnSample, ObjectClass
from instancediffusion.scene import Instance, Scene
from instancediffusion.scene.english import plural

PRECISION = ("mask", "box", "scribble", "point")
"""Kinds of location, the most precise one first."""


@dataclass(frozen=True, eq=False)
class TrueInstance:
    """One object that was asked for. What was not given is None and is not scored.

    Attributes:
        name: its class.
        colour: its named colour.
        facing: its orientation.
        told: which kinds of location were given; none in a picture made from its prompt only.
        box: (4,) x0 y0 x1 y1 fractions, of the whole object, given or not; None if unknown.
        point: (x, y) fractions.
        scribble: (K, 2) fractions.
        visible: (H, W) bool, the part that should be visible, given or not; None if unknown.
        amodal: (H, W) bool, all of it, hidden parts too, given or not; None if unknown.
        hidden: fraction of it that nearer objects cover, 0..1.
    """

    name: str | None = None
    colour: str | None = None
    facing: str | None = None
    told: tuple[str, ...] = ()
    box: npt.NDArray[np.float64] | None = None
    point: tuple[float, float] | None = None
    scribble: npt.NDArray[np.float64] | None = None
    visible: npt.NDArray[np.bool_] | None = None
    amodal: npt.NDArray[np.bool_] | None = None
    hidden: float = 0.0

    @property
    def size(self) -> float | None:
        """Side of a square of the box's area, as a fraction of the canvas."""
        if self.box is None:
            return None
        return float(np.sqrt((self.box[2] - self.box[0]) * (self.box[3] - self.box[1])))

    @property
    def place(self) -> str | None:
        """The most precise kind of location that was given; None if none was."""
        return next((kind for kind in PRECISION if kind in self.told), None)


@dataclass(frozen=True, eq=False)
class Truth:
    """All objects of a picture.

    Attributes:
        instances: what was asked for.
        composite: (H, W, 3) uint8, the world's own picture of it, for the upper bound; None if there is none.
        name: what to call it in lists of single pictures.
        scene: what a model was given, to be drawn beside the picture.
    """

    instances: tuple[TrueInstance, ...]
    composite: npt.NDArray[np.uint8] | None = None
    name: str = ""
    scene: Scene | None = None


def truth_of_sample(sample: DrawnSample, scene: Scene, *, everything: bool = False) -> Truth:
    """Write down what a scene made from a world's sample asks for.

    Args:
        sample: where the truth comes from.
        scene: which locations were given; its instances stand in the sample's order. Colour and orientation count as
            given where the caption names them.
        everything: count colour and orientation as given in any case.
    """
    return Truth(
        tuple(
            _from_world(item, asked, everything) for item, asked in zip(sample.instances, scene.instances, strict=True)
        ),
        sample.image,
        str(sample.seed),
        scene,
    )


def truth_of_prompt(sample: DrawnSample, scene: Scene, kinds: Sequence[ObjectClass]) -> Truth:
    """Write down what the prompt alone asks for: the objects it names, nowhere in particular."""
    words = {kind.name: kind.words for kind in kinds}
    named = [item for item in sample.instances if _any_word(words[item.name], sample.prompt)]
    return Truth(tuple(TrueInstance(item.name) for item in named), sample.image, str(sample.seed), scene)


def truth_of_scene(scene: Scene, kinds: Sequence[ObjectClass], name: str = "") -> Truth:
    """Write down what a scene asks for, reading names, colours and orientations from its captions.

    Args:
        scene: any scene; a caption that names no known class, or several, asks for no class.
        kinds: the classes that the judge knows.
        name: what to call it.
    """
    return Truth(tuple(_from_scene(instance, kinds) for instance in scene.instances), None, name, scene)


def _from_world(item: DrawnObject, asked: Instance, everything: bool) -> TrueInstance:
    colour = item.colour if everything or (item.colour and _says(asked.caption, item.colour)) else None
    facing = item.facing if everything or (item.facing and _says(asked.caption, item.facing)) else None
    whole = max(int(item.amodal.sum()), 1)
    return TrueInstance(
        item.name,
        colour,
        facing,
        told=asked.kinds,
        box=np.asarray(item.box, np.float64),
        point=(asked.point.x, asked.point.y) if asked.point else None,
        scribble=np.array(asked.scribble.points) if asked.scribble else None,
        visible=item.visible,
        amodal=item.amodal,
        hidden=1.0 - float(item.visible.sum()) / whole,
    )


def _from_scene(asked: Instance, kinds: Sequence[ObjectClass]) -> TrueInstance:
    kind = named_kind(asked.caption, kinds)
    sides = [side for side in ("left", "right") if _says(asked.caption, side)] if kind and kind.facings else []
    colours = [colour for colour in (kind.colours if kind else ()) if _says(asked.caption, colour)]
    mask = asked.mask.array if asked.mask else None
    return TrueInstance(
        kind.name if kind else None,
        colours[0] if len(colours) == 1 else None,
        sides[0] if len(sides) == 1 else None,
        told=asked.kinds,
        box=stated_box(asked),
        point=(asked.point.x, asked.point.y) if asked.point else None,
        scribble=np.array(asked.scribble.points) if asked.scribble else None,
        visible=mask,
        amodal=mask,
    )


def stated_box(asked: Instance) -> npt.NDArray[np.float64] | None:
    """The extent of an instance as a box (4,), fractions; None where nothing but a point is given."""
    return None if set(asked.kinds) <= {"point"} else np.array(asked.extent)


def named_kind(caption: str, kinds: Sequence[ObjectClass]) -> ObjectClass | None:
    """Return the one class a caption names; a longer name hides the shorter ones in it ("palm tree", "tree")."""
    found: Mapping[str, ObjectClass] = {word: kind for kind in kinds for word in kind.words if _says(caption, word)}
    longest = {word: kind for word, kind in found.items() if not any(word != w and _says(w, word) for w in found)}
    owners = {kind.name: kind for kind in longest.values()}
    return next(iter(owners.values())) if len(owners) == 1 else None


def _any_word(words: Collection[str], text: str) -> bool:
    return any(_says(text, form) for word in words for form in (word, plural(word)))


def _says(text: str, phrase: str) -> bool:
    """Tell whether a text holds a phrase as whole words."""
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE) is not None
