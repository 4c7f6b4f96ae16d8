"""The spec of a data set to be made: its classes, how scenes are put together, what is filtered out."""

from __future__ import annotations

import json
import math
import string
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from instancediffusion.errors import SettingsError
from instancediffusion.scene.limits import MAX_FILE_BYTES, MAX_INSTANCES, MAX_SIDE_PX, MIN_SIDE_PX
from instancediffusion.training.config import build

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover - the standard library's reader came with Python 3.11
    import tomli as tomllib

ORDERS = ("random", "bottom", "listed", "none")
"""Who is in front: chosen at random; whose lower edge is lower; whose class is listed later; not stated."""

BOXES = ("asked", "seen")
MAX_PICTURES, MAX_SEED = 10_000_000, 2**31 - 1


@dataclass(frozen=True)
class ClassSpec:
    """One class of objects. Lengths are fractions of the canvas.

    Attributes:
        name: of the category in the data set.
        captions: what an instance is given as, one at random; `{name}` and the words of `attributes` are filled in.
            Empty: the name with an article.
        attributes: placeholder -> words, such as `colour = ["red", "blue"]` for `"a {colour} {name}"`.
        labels: what the detector calls the class; empty: its name.
        count: least and most of it in a picture.
        weight: how often it is chosen among classes whose count still leaves room, against their weights.
        size: least and most side of a square of the area of its box, against the square root of the canvas's area.
        aspect: least and most width of its box against the height, both in pixels.
        place: x0, y0, x1, y1: where its boxes lie.
        shapes: pictures of silhouettes (PNG; set where not black and at least half opaque), one at random: instances
            are then given by mask, and `aspect` is the shape's own. Paths are relative to the spec.
    """

    name: str
    captions: tuple[str, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    count: tuple[int, ...] = (0, 3)
    weight: float = 1.0
    size: tuple[float, ...] = (0.2, 0.5)
    aspect: tuple[float, ...] = (0.67, 1.5)
    place: tuple[float, ...] = (0.0, 0.0, 1.0, 1.0)
    shapes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise SettingsError(f"name = {self.name!r}: write what the class is called")
        _texts("labels", self.labels)
        _range("count", self.count, 0, MAX_INSTANCES)
        if self.count[1] < 1:
            raise SettingsError(f"count = {list(self.count)}: the class is never chosen; write [0, 1], or leave it out")
        _range("size", self.size, 0.01, 1.0)
        _range("aspect", self.aspect, 0.05, 20.0)
        if not 0 < self.weight < math.inf:
            raise SettingsError(f"weight = {self.weight:g}: write a number above 0")
        x0, y0, x1, y1 = self.place if len(self.place) == 4 else (1.0, 1.0, 0.0, 0.0)
        if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
            raise SettingsError(f"place = {list(self.place)}: write [x0, y0, x1, y1] in 0..1, corners in that order")
        for key, words in self.attributes.items():
            if not isinstance(words, list):
                raise SettingsError(f"attributes.{key} = {words!r}: write a list of words")
            _texts(f"attributes.{key}", words)
            if key == "name" or not words:
                raise SettingsError(
                    f"attributes.{key}: {'is the class itself; use another word' if words else 'empty'}"
                )
        _templates("captions", self.captions, ["name", *self.attributes])

    @property
    def called(self) -> tuple[str, ...]:
        """What the detector calls it."""
        return self.labels or (self.name,)


@dataclass(frozen=True)
class FilterSpec:
    """What is left out of the data set, given the detections.

    Attributes:
        score: least score of a detection that counts, 0..1.
        box_iou: least IoU of the detected and the given box, 0..1; a detection without hidden parts may agree with
            what nearer boxes leave of the given one instead.
        max_dropped: a picture is left out if more than this fraction of its instances is.
        max_unasked: ... or if more objects of the classes are detected that were not asked for.
        boxes: `asked`: labels are the given boxes; `seen`: those of the detector.
    """

    score: float = 0.3
    box_iou: float = 0.5
    max_dropped: float = 0.34
    max_unasked: int = 1000
    boxes: str = "asked"

    def __post_init__(self) -> None:
        for name in ("score", "box_iou", "max_dropped"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} = {getattr(self, name):g}: write a fraction in 0..1")
        if self.max_unasked < 0:
            raise SettingsError(f"max_unasked = {self.max_unasked}: write 0 or more")
        if self.boxes not in BOXES:
            raise SettingsError(f"boxes = {self.boxes!r}: write one of {', '.join(BOXES)}")


@dataclass(frozen=True)
class DatasetSpec:
    """A data set to be made. Picture k depends on the spec, its seed and k alone, so `pictures` may be raised later.

    Attributes:
        pictures: how many are made; those that are filtered out are not made up for.
        classes: of the objects.
        seed: of everything that is left to chance.
        size: width and height of the canvas in pixels.
        instances: least and most instances of a picture.
        backgrounds: phrases such as `"on a beach"`, one at random.
        prompts: one at random; `{instances}` is the list of captions, `{background}` the background.
        negative_prompt: what pictures are not to show.
        overlap_share: fraction of the pictures, among those of two or more instances, in which two boxes overlap.
        overlap: fraction of the smaller box that two overlapping boxes have in common: the least of one pair, the most
            of all. In the other pictures no boxes overlap.
        order: one of `ORDERS`.
        min_visible: least fraction of each box that nearer boxes leave free; not with `order = "none"`.
        settings: of the pipeline; those left out are the model's own.
        filter: what is left out.
        licence: of the pictures; empty: that of the model, where it is known.
    """

    pictures: int
    classes: tuple[ClassSpec, ...]
    seed: int = 0
    size: tuple[int, ...] = (512, 512)
    instances: tuple[int, ...] = (1, 4)
    backgrounds: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    negative_prompt: str = ""
    overlap_share: float = 0.5
    overlap: tuple[float, ...] = (0.1, 0.5)
    order: str = "random"
    min_visible: float = 0.3
    settings: dict[str, Any] = field(default_factory=dict)
    filter: FilterSpec = field(default_factory=FilterSpec)
    licence: str = ""

    def __post_init__(self) -> None:
        for name, least, most in (("pictures", 1, MAX_PICTURES), ("seed", 0, MAX_SEED)):
            if not least <= getattr(self, name) <= most:
                raise SettingsError(f"{name} = {getattr(self, name)}: write {least} to {most}")
        if len(self.size) != 2 or not all(MIN_SIDE_PX <= side <= MAX_SIDE_PX for side in self.size):
            raise SettingsError(f"size = {list(self.size)}: write [width, height], {MIN_SIDE_PX}..{MAX_SIDE_PX} pixels")
        _range("instances", self.instances, 1, MAX_INSTANCES)
        _range("overlap", self.overlap, 0.0, 1.0)
        for name in ("overlap_share", "min_visible"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} = {getattr(self, name):g}: write a fraction in 0..1")
        if self.overlap[0] <= 0 < self.overlap_share:
            raise SettingsError(f"overlap = {list(self.overlap)}: the least has to be above 0, or overlap_share be 0")
        if self.order not in ORDERS:
            raise SettingsError(f"order = {self.order!r}: write one of {', '.join(ORDERS)}")
        _texts("backgrounds", self.backgrounds)
        _templates("prompts", self.prompts, ["instances", "background"])
        if not self.backgrounds and any("{background}" in text for text in self.prompts):
            raise SettingsError("prompts: {background} is named, and there are no backgrounds; write some")
        self._check_classes()

    def _check_classes(self) -> None:
        if not self.classes:
            raise SettingsError("classes: empty; write a [[classes]] table for each")
        names = [one.name for one in self.classes]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise SettingsError(f"classes: {twice[0]!r} is there twice; give each class one table")
        least, most = (sum(one.count[side] for one in self.classes) for side in (0, 1))
        if least > self.instances[1] or most < self.instances[0]:
            message = f"the counts of the classes allow {least} to {most} instances"
            raise SettingsError(f"instances = {list(self.instances)}: {message}; change one or the other")

    @property
    def labels(self) -> tuple[str, ...]:
        """What the detector may see, each once."""
        return tuple(dict.fromkeys(label for one in self.classes for label in one.called))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-like values."""
        return asdict(self)

    def scene_facts(self) -> dict[str, Any]:
        """What decides the scenes: everything but how many there are, the filter and the licence."""
        return {k: v for k, v in self.to_dict().items() if k not in ("pictures", "filter", "licence", "settings")}


def read_spec(path: str | Path) -> DatasetSpec:
    """Read a spec from a TOML or JSON file.

    Raises:
        SettingsError: it is neither, or names an unknown or unusable setting; the message says where, and the fix.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise SettingsError(f"{path}: is larger than {MAX_FILE_BYTES >> 20} MB; a spec is a small file")
        text = content.decode("utf-8-sig")
        values = json.loads(text) if Path(path).suffix.lower() == ".json" else tomllib.loads(text)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        kind = "JSON" if Path(path).suffix.lower() == ".json" else "TOML"
        raise SettingsError(f"{path}: not a {kind} file: {error}") from error
    return build(DatasetSpec, values, str(path))


def _range(name: str, pair: Sequence[float], least: float, most: float) -> None:
    if len(pair) != 2 or not least <= pair[0] <= pair[1] <= most:
        raise SettingsError(f"{name} = {list(pair)}: write [least, most], {least:g} to {most:g}")


def _texts(name: str, texts: Iterable[Any]) -> None:
    for index, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise SettingsError(f"{name}[{index}] = {text!r}: write a text that is not blank")


def _templates(name: str, texts: Sequence[str], known: Sequence[str]) -> None:
    """Check texts with placeholders in braces."""
    _texts(name, texts)
    for index, text in enumerate(texts):
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise SettingsError(f"{name}[{index}] = {text!r}: {error}; write {{{{ for a brace") from error
        for _, field_name, form, conversion in parts:
            if field_name is not None and (field_name not in known or form or conversion):
                message = f"{{{field_name}}} is none of {', '.join(f'{{{word}}}' for word in known)}"
                raise SettingsError(f"{name}[{index}] = {text!r}: {message}; write one of these")
