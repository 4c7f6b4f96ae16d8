"""What readers of other programs' files share: entries that are left out one by one, shapes, prompts, names."""

from __future__ import annotations

import io
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from ...canvas import Canvas
from ...checks import check_text, is_array
from ...limits import MAX_INSTANCES, MAX_SIDE_PX, MIN_SIDE_PX
from ...locations import Box, Mask, Point, Scribble, read_box, read_point, read_polygons, read_scribble
from ...model import Instance, Scene
from ...problem_report import Report, child, show

_PICTURE_SUFFIXES = frozenset(
    "jpg jpeg jpe jfif png webp bmp tif tiff gif heic heif avif jp2 ppm pgm dng".split()
)  # fmt: skip
_RESERVED = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


@dataclass(frozen=True)
class ReadOptions:
    """What a file does not say by itself.

    Attributes:
        labels: names of classes that the file gives as numbers, in their order.
        canvas: (width, height) in pixels of pictures whose size the file does not state.
        units: what lengths are counted in, one of `choices.UNITS`; None takes what the format says.
        boxes: the order of a box's four numbers, one of `choices.BOX_ORDERS`; None takes what the format says.
        folder: where the file lies, for class names and pictures beside it.
        name: the file's own name.
        captions: the captions file that goes with a COCO instances file.
        image_ids: the pictures of a COCO file that are read; None reads all.
    """

    labels: Sequence[str] | None = None
    canvas: tuple[int, int] | None = None
    units: str | None = None
    boxes: str | None = None
    folder: Path | None = None
    name: str = ""
    captions: str | os.PathLike[str] | None = None
    image_ids: Collection[int | str] | None = None


@dataclass(frozen=True)
class NamedScene:
    """A scene of a file that may hold several.

    Attributes:
        name: a name for it, safe as the stem of a file.
        scene: what it shows.
        image_id: the picture's number or text in a COCO file, else its position in the file, counted from 1.
        file_name: the picture's file, as the file names it; empty if it names none.
        seed: the seed it was sampled with, if the file is a picture made from it.
        settings: the settings it was sampled with, likewise.
        model: what it was drawn by, likewise: the hash of the weights, the type of the numbers.
    """

    name: str
    scene: Scene
    image_id: int | str = 1
    file_name: str = ""
    seed: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)


def scene_name(file_name: str) -> str:
    """A file name's stem, whatever system or service the name is of: Windows and POSIX paths, URLs, encoded or not.

    The query of a signed URL is no part of the name. Characters that some system forbids become `_`.
    """
    text = file_name.strip()
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        try:
            parts = urlsplit(text)
        except ValueError:
            parts = None
        if parts is not None:
            text = parts.path.rstrip("/") or parts.netloc
    # Label Studio serves local files as /data/local-files/?d=folder%2Fpicture.jpg.
    served = re.search(r"[?&]d=([^&]+)", text)
    text = served[1] if served else text
    last = re.split(r"[/\\]", text.rstrip("/\\"))[-1]
    if "%" in last:
        last = re.split(r"[/\\]", unquote(last, errors="replace").rstrip("/\\"))[-1]
    stem, dot, suffix = last.rpartition(".")
    if dot and stem and suffix.lower() in _PICTURE_SUFFIXES:
        last = stem
    safe = _RESERVED.sub("_", last.encode("utf-8", "replace").decode()).strip(" .")
    while len(safe.encode()) > 150:  # a seed and a suffix are to fit beside it into 255 bytes
        safe = safe[:-1]
    return f"_{safe}" if _DEVICES.match(safe) else safe or "scene"


def distinct_names(files: Sequence[str]) -> list[str]:
    """A name for each of several files: its stem; where files share one, with the folder before it, then numbered."""
    stems = [scene_name(file) for file in files]
    counts = Counter(stem.casefold() for stem in stems)
    found = []
    for file, stem in zip(files, stems, strict=True):
        folder = re.split(r"[/\\]", file.split("?")[0].replace("\\", "/").rpartition("/")[0])[-1]
        shared = counts[stem.casefold()] > 1 and folder
        found.append(f"{scene_name(folder)}_{stem}" if shared else stem)
    return unique_names(found)


def unique_names(names: Iterable[str], *, taken: Iterable[str] = ()) -> list[str]:
    """The names, each that was there before numbered; capitals count as small letters, as some disks take them."""
    used, found = {name.casefold() for name in taken}, list[str]()
    for name in names:
        candidate, count = name, 2
        while candidate.casefold() in used:
            candidate, count = f"{name}-{count}", count + 1
        used.add(candidate.casefold())
        found.append(candidate)
    return found


def read_entries(
    report: Report, entries: Iterable[tuple[str, Any]], read: Callable[[Report, str, Any], Instance | None]
) -> list[Instance]:
    """Read instances one by one; one that cannot be used is left out with its reason, and the rest goes on.

    Args:
        report: takes every problem.
        entries: path and content of each.
        read: reads one, noting its problems in the report it is given; None = left out.
    """
    found: list[Instance] = []
    surplus = 0
    for path, value in entries:
        if len(found) == MAX_INSTANCES:
            surplus += 1
            continue
        entry = Report(lenient=True)
        instance = read(entry, path, value)
        report.adopt(entry)
        if instance is not None and not entry.failed:
            found.append(instance)
    if surplus:
        report.warn("$", f"has {surplus} more objects than the {MAX_INSTANCES} that are read: left out")
    return found


def items_of(report: Report, path: str, value: object) -> list[tuple[str, Any]]:
    """Paths and items of an array; what is none is noted."""
    if not is_array(value):
        report.error(path, f"is {show(value)}, not an array", "write a list of objects")
        return []
    return [(child(path, index), item) for index, item in enumerate(value)]


def make_instance(report: Report, path: str, caption: object, **locations: Any) -> Instance | None:
    """An instance of a caption and those of its locations that could be read; without one it is a fault."""
    if not isinstance(caption, str) or not caption.strip():
        report.fault(path, f"has no label ({show(caption)})", "give the object a name")
        return None
    if check_text(report, path, caption, what="label") is None:
        return None
    kept = {name: location for name, location in locations.items() if location is not None}
    if not any(isinstance(location, Box | Point | Scribble | Mask) for location in kept.values()):
        if not report.problems:
            report.fault(path, "has no location that can be used", "give it a box")
        return None
    return Instance(caption.strip(), **kept)


def make_scene(
    report: Report, prompt: object, instances: Sequence[Instance], canvas: Canvas, negative: object = None
) -> Scene | None:
    """A scene; without a prompt of its own, the captions are its prompt. One without a word is a fault."""
    given = prompt.strip() if isinstance(prompt, str) and check_text(Report(), "$", prompt, what="prompt") else ""
    text = given or ", ".join(dict.fromkeys(instance.caption for instance in instances))
    if not text:
        report.fault("$", "has neither a prompt nor an object that can be used", "see the lines above")
        return None
    readable = isinstance(negative, str) and check_text(Report(), "$", negative, what="negative prompt")
    avoided = negative if isinstance(negative, str) and readable else None
    return Scene(text, tuple(instances), canvas.width, canvas.height, avoided)


def canvas_of(
    report: Report, path: str, width: object, height: object, options: ReadOptions, picture: str = ""
) -> Canvas | None:
    """The canvas that a file states, else the one given, else that of the picture if it lies beside the file."""
    sides = [whole_number(value) for value in (width, height)]
    if None not in sides and all(MIN_SIDE_PX <= side <= MAX_SIDE_PX for side in sides if side is not None):
        return Canvas(sides[0] or 0, sides[1] or 0)
    if options.canvas is not None:
        return Canvas(*options.canvas)
    if picture and options.folder is not None:
        beside = picture_size(options.folder / re.split(r"[/\\]", picture)[-1])
        if beside is not None:
            return Canvas(*beside)
    message = f"the picture's size is {show(width)} x {show(height)}"
    fix = f"sides are {MIN_SIDE_PX}..{MAX_SIDE_PX} pixels; give the size with --canvas WIDTHxHEIGHT"
    report.fault(path, message if width is not None or height is not None else "does not state the picture's size", fix)
    return None


def picture_size(path: Path) -> tuple[int, int] | None:
    """(width, height) of a picture as it is seen, or None if there is none that could be a canvas."""
    return _size_of(path)


def picture_size_of(data: bytes) -> tuple[int, int] | None:
    """(width, height) of the bytes of a picture file, likewise."""
    return _size_of(io.BytesIO(data))


def _size_of(source: Path | io.BytesIO) -> tuple[int, int] | None:
    from PIL import Image

    try:
        with Image.open(source) as image:
            # Numbers 5 to 8 of the EXIF orientation turn the picture by a quarter.
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            width, height = image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    if min(width, height) < MIN_SIDE_PX or max(width, height) > MAX_SIDE_PX:
        return None
    return (height, width) if turned else (width, height)


def default_canvas(report: Report, options: ReadOptions) -> Canvas:
    """The canvas of a file whose lengths need none: as given, else square, with a warning."""
    if options.canvas is not None:
        return Canvas(*options.canvas)
    report.warn("$", "does not state the picture's size; taken to be square", "give it with --canvas WIDTHxHEIGHT")
    return Canvas(512, 512)


def plain_number(value: object) -> float | None:
    """A finite number, also one that is written as text."""
    if isinstance(value, str) and len(value) < 40:
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        return None
    return float(value)


def whole_number(value: object) -> int | None:
    """A whole number, also one that is written as text or with a point."""
    number = plain_number(value)
    return int(number) if number is not None and number == math.floor(number) else None


def plain_numbers(value: object, count: int | None = None) -> list[float] | None:
    """A list of finite numbers of a certain length, or of any."""
    if not is_array(value) or (count is not None and len(value) != count):
        return None
    numbers = [plain_number(item) for item in value]
    return None if any(number is None for number in numbers) else [number for number in numbers if number is not None]


def box_of(report: Report, path: str, corners: Sequence[float], canvas: Canvas) -> Box | None:
    """A box of two opposite corners in pixels, whichever they are."""
    x0, y0, x1, y1 = corners
    return read_box(report, path, [min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)], canvas)


def polygon_of(report: Report, path: str, points: Sequence[Sequence[float]], canvas: Canvas) -> Mask | None:
    """The pixels inside a closed line through points in pixels."""
    return read_polygons(report, path, [[value for point in points for value in point]], canvas)


def ellipse_of(
    report: Report,
    path: str,
    centre: tuple[float, float],
    radii: tuple[float, float],
    canvas: Canvas,
    degrees: float = 0.0,
) -> Mask | None:
    """The pixels inside an ellipse, turned clockwise by some degrees; lengths in pixels."""
    angles = np.linspace(0, 2 * np.pi, 128, endpoint=False)
    x, y = radii[0] * np.cos(angles), radii[1] * np.sin(angles)
    turn = math.radians(degrees)
    points = np.stack(
        [centre[0] + x * math.cos(turn) - y * math.sin(turn), centre[1] + x * math.sin(turn) + y * math.cos(turn)], 1
    )
    return polygon_of(report, path, points.tolist(), canvas)


def stroke_of(report: Report, path: str, points: Sequence[Sequence[float]], canvas: Canvas) -> Scribble | Point | None:
    """A stroke through points in pixels; a single one is a point."""
    if len(points) == 1:
        return read_point(report, path, list(points[0]), canvas)
    return read_scribble(report, path, [list(point) for point in points], canvas)


def placed(location: Box | Point | Scribble | Mask | None) -> dict[str, Any]:
    """A location as the keyword argument of `Instance` that it is for."""
    return {} if location is None else {type(location).__name__.lower(): location}
