"""A scene: a prompt, a canvas, and instances with a caption and a location each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, ClassVar, Protocol

from .checks import check_integer, check_text, is_array
from .limits import MAX_INSTANCES, MAX_SIDE_PX, MAX_Z_ORDER, MIN_SIDE_PX
from .locations import LOCATIONS, Box, Location, Mask, Point, Scribble, TokenLocation
from .locations.kind import BoxUnit
from .problem_report import Report, kind, show
from .reference import Reference

KINDS = ("box", "point", "scribble", "mask")
"""The kinds of location that the network takes, in the order in which they are always listed: that of their tokens
(paper, section 3.1). `locations.LOCATIONS` has these, and those that were added."""


@dataclass(frozen=True)
class Instance:
    """One object: what it is and where.

    Attributes:
        caption: what is to be seen there, not blank.
        box: rectangle around the object.
        point: a position on the object.
        scribble: a stroke over the object.
        mask: the object's pixels. At least one location is given; any mixture is allowed.
        z_order: layer; larger is nearer to the viewer, None states no order.
        negative: what the object is not to look like, in words.
        reference: a picture of what it is to look like, for models with an IP-Adapter. A PIL image is taken, and kept
            as a `Reference`.
        others: locations of kinds that were added (`locations.register_location`), one of each at most. In a scene,
            what they are in the network's kinds is given along with them, where it is not given already.

    Raises:
        SceneError: with every fault of the arguments.
    """

    caption: str
    box: Box | None = None
    point: Point | None = None
    scribble: Scribble | None = None
    mask: Mask | None = None
    z_order: int | None = None
    negative: str | None = None
    reference: Reference | None = None
    others: tuple[Location, ...] = ()

    def __post_init__(self) -> None:
        report = Report()
        check_text(report, "$.caption", self.caption, what="caption")
        for name in KINDS:
            value = getattr(self, name)
            if value is not None and not isinstance(value, LOCATIONS[name]):
                wanted = LOCATIONS[name].__name__
                report.error(f"$.{name}", f"is {kind(value)}, not a {wanted}", f"wrap it: {wanted}(...)")
        if is_array(self.others):
            object.__setattr__(self, "others", tuple(self.others))
            self._check_others(report)
        else:
            report.error("$.others", f"is {kind(self.others)}, not a sequence", "write a list of locations")
        if not self.kinds and not self.others:
            report.error("$", "has no location", "give a box, point, scribble or mask")
        if self.z_order is not None:
            layer = check_integer(report, "$.z_order", self.z_order, -MAX_Z_ORDER, MAX_Z_ORDER)
            object.__setattr__(self, "z_order", layer)
        if self.negative is not None:
            check_text(report, "$.negative", self.negative, what="negative caption", blank=True)
        given: Any = self.reference
        if hasattr(given, "save") and hasattr(given, "getbands"):  # a PIL image, which is not imported for the test
            object.__setattr__(self, "reference", Reference.from_image(given))
        elif given is not None and not isinstance(given, Reference):
            report.error("$.reference", f"is {kind(given)}, not a picture", "give a PIL image or a Reference")
        report.settle()

    def _check_others(self, report: Report) -> None:
        given: tuple[Any, ...] = self.others
        for index, location in enumerate(given):
            path, name = f"$.others[{index}]", getattr(location, "kind", None)
            if not isinstance(location, Location) or LOCATIONS.get(str(name)) is not type(location):
                report.error(path, f"is {kind(location)}, no kind of location", "add its kind: register_location")
            elif isinstance(location, TokenLocation):
                report.error(path, f"is a {type(location).__name__}", f"give it as {name}=")
            elif any(name == other.kind for other in given[:index] if isinstance(other, Location)):
                report.error(path, f"is a second {name}", "give one of each kind")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of location that the network is given of this instance, in the order of `KINDS`."""
        return tuple(name for name in KINDS if getattr(self, name) is not None)

    @property
    def extent(self) -> BoxUnit:
        """What it covers, fractions: its box; else the box of its mask, its scribble or (without area) its point."""
        found = next((own for own in (self.box, self.mask, self.scribble, self.point) if own is not None), None)
        return (0.0, 0.0, 1.0, 1.0) if found is None else found.extent

    def implied(self, size: tuple[int, int]) -> dict[str, Location]:
        """What the locations of added kinds are in the network's kinds, on a canvas of (height, width) pixels."""
        found: dict[str, Location] = {}
        for location in self.others:
            found = {**location.given(size), **found}
        return found

    def stated(self, size: tuple[int, int]) -> tuple[Location, ...]:
        """The locations that were stated, without those of the network's kinds that others imply."""
        implied = self.implied(size)
        own = ((name, getattr(self, name)) for name in self.kinds)
        return (*(value for name, value in own if value != implied.get(name)), *self.others)

    def without_implied(self, size: tuple[int, int]) -> Instance:
        """The instance as it is outside of a scene."""
        implied = self.implied(size)
        gone: dict[str, Any] = {name: None for name in self.kinds if getattr(self, name) == implied.get(name)}
        return replace(self, **gone) if gone else self


class Notation(Protocol):
    """How scenes are written as data. Formats know scenes, not the other way: `formats.native` sets the scene's."""

    @staticmethod
    def write(scene: Scene) -> dict[str, Any]:
        """Return the scene as data that `json.dump` takes."""
        ...

    @staticmethod
    def read(data: object, report: Report) -> Scene | None:
        """Read what `write` returned, or None if the report holds an error."""
        ...


@dataclass(frozen=True)
class Scene:
    """What a picture is to show.

    Attributes:
        prompt: the whole picture in words, not blank.
        instances: its objects, at most 1000; any sequence is taken, and kept as a tuple.
        width: width of the canvas in pixels, 16..8192. Coordinates in files and masks refer to it; it is also the shape
            of the picture; any size of that shape may be generated.
        height: height of the canvas in pixels, 16..8192.
        negative_prompt: what the picture is not to show.

    Raises:
        SceneError: with every fault of the arguments.
    """

    prompt: str
    instances: tuple[Instance, ...]
    width: int
    height: int
    negative_prompt: str | None = None

    notation: ClassVar[type[Notation]]

    def __post_init__(self) -> None:
        report = Report()
        check_text(report, "$.prompt", self.prompt, what="prompt")
        if self.negative_prompt is not None:
            check_text(report, "$.negative_prompt", self.negative_prompt, what="negative prompt", blank=True)
        for name in ("width", "height"):
            side = check_integer(report, f"$.{name}", getattr(self, name), MIN_SIDE_PX, MAX_SIDE_PX)
            object.__setattr__(self, name, side)
        if not is_array(self.instances):
            report.error("$.instances", f"is {kind(self.instances)}, not a sequence", "write a list of Instance")
        else:
            object.__setattr__(self, "instances", tuple(self.instances))
            if not report.failed:
                self._with_implied()
            self._check_instances(report)
        report.settle()

    def _with_implied(self) -> None:
        """Give the network's kinds of those instances that have others."""
        size, found = (self.height, self.width), list(self.instances)
        for index, instance in enumerate(found):
            if not isinstance(instance, Instance) or not instance.others:
                continue
            implied = instance.implied(size)
            missing: dict[str, Any] = {name: implied[name] for name in implied if getattr(instance, name) is None}
            found[index] = replace(instance, **missing)
        object.__setattr__(self, "instances", tuple(found))

    def _check_instances(self, report: Report) -> None:
        if len(self.instances) > MAX_INSTANCES:
            report.error("$.instances", f"has {len(self.instances)} items", f"use at most {MAX_INSTANCES}")
        given: tuple[object, ...] = self.instances[:MAX_INSTANCES]
        for index, instance in enumerate(given):
            path = f"$.instances[{index}]"
            if not isinstance(instance, Instance):
                report.error(path, f"is {kind(instance)}, not an Instance", "wrap it: Instance(...)")
            elif instance.mask is not None and instance.mask.size != (self.height, self.width):
                message = f"is {show(instance.mask.size)}, but the canvas is (height, width) = "
                message += f"{show((self.height, self.width))}"
                report.error(f"{path}.mask.size", message, "draw the mask on the scene's canvas")

    def in_network_kinds(self) -> Scene:
        """The same scene without locations of added kinds: what the network is given of them stays instead."""
        return replace(self, instances=tuple(replace(instance, others=()) for instance in self.instances))

    def _repr_png_(self) -> bytes:
        """Show the scene in a notebook: its overlay."""
        return bytes(_notebook().scene_png(self))

    def _repr_html_(self) -> str:
        """Show the scene in a notebook: its overlay as SVG."""
        return str(_notebook().scene_html(self))

    def to_dict(self) -> dict[str, Any]:
        """Return the scene in the native format (version 1, lengths in pixels), ready for `json.dump`."""
        return self.notation.write(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Scene:
        """Read the native format.

        Raises:
            SceneError: with every fault of the data. What was mended (a box cut off at the canvas) comes as a
                `SceneWarning`.
        """
        report = Report()
        scene = cls.notation.read(data, report)
        report.settle()
        if scene is None:
            raise AssertionError("a scene that cannot be read has a problem that says why")
        return scene


def _notebook() -> Any:
    """What draws scenes lies above scenes; it is imported by its name when a notebook asks, and only then."""
    return import_module("instancediffusion.rendering.notebook")
