"""A scene: a prompt, a canvas, and instances with a caption and a place each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, Protocol

from .checks import check_integer, check_text, is_array
from .limits import MAX_INSTANCES, MAX_SIDE_PX, MAX_Z_ORDER, MIN_SIDE_PX
from .locations import Box, Mask, Point, Scribble
from .reference import Reference
from .report import Report, kind, show

KINDS = ("box", "point", "scribble", "mask")
"""The kinds of location, in the order in which they are always listed: that of their tokens (paper, section 3.1)."""

_TYPES: dict[str, type] = {"box": Box, "point": Point, "scribble": Scribble, "mask": Mask}


@dataclass(frozen=True)
class Instance:
    """One object: what it is and where.

    Attributes:
        caption: what is to be seen there, not blank.
        box: rectangle around the object.
        point: a place on the object.
        scribble: a stroke over the object.
        mask: the object's pixels. At least one of the four is given; any mixture is allowed.
        z_order: layer; larger is nearer to the viewer, None states no order.
        negative: what the object is not to look like, in words.
        reference: a picture of what it is to look like, for models with an IP-Adapter. A PIL image is taken, and kept
            as a `Reference`.

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

    def __post_init__(self) -> None:
        report = Report()
        check_text(report, "$.caption", self.caption, what="caption")
        for name, type_ in _TYPES.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, type_):
                wanted = type_.__name__
                report.error(f"$.{name}", f"is {kind(value)}, not a {wanted}", f"wrap it: {wanted}(...)")
        if not self.kinds:
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

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of location this instance has, in the order of `KINDS`."""
        return tuple(name for name in KINDS if getattr(self, name) is not None)


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
        width: width of the canvas in pixels, 16..8192. It is the frame that files and masks count in, and the shape
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
            self._check_instances(report)
        report.settle()

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
