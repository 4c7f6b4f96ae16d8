"""Layouts as plain text: YOLO labels, and the answers of LLM-grounded diffusion."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...canvas import Canvas
from ...checks import is_array
from ...limits import MAX_FILE_BYTES, PICTURE_SUFFIXES
from ...model import Instance
from ...problem_report import Report, show
from ..scene_format import SceneFormat, register
from .entries import (
    NamedScene,
    ReadOptions,
    box_of,
    default_canvas,
    make_instance,
    make_scene,
    picture_size,
    plain_numbers,
    polygon_of,
    read_entries,
    scene_name,
    whole_number,
)

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_YOLO_LINE = re.compile(rf"\S+(?:[ \t]+{_NUMBER}){{4,}}[ \t]*\Z")
_LMD_HEAD = re.compile(r"^[ \t]*Objects?[ \t]*:[ \t]*\[", re.MULTILINE)
_LMD_CANVAS = (512, 512)  # what its prompts to the language model say
_NAME_FILES = ("classes.txt", "obj.names", "labels.txt", "data.yaml", "dataset.yaml", "data.yml", "notes.json")


def _is_yolo(text: str) -> bool:
    """Whether every line is a class and at least four numbers, nearly all of them fractions."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines or not all(_YOLO_LINE.match(line) for line in lines[:1000]):
        return False
    numbers = [abs(float(word)) for line in lines[:1000] for word in line.split()[1:5]]
    return sum(number <= 1.5 for number in numbers) >= 0.9 * len(numbers) and any("." in line for line in lines)


def read_yolo(text: str, report: Report, options: ReadOptions) -> list[NamedScene]:
    """Read the one scene of a YOLO file: a class, and centre and size of a box or the corners of a polygon.

    Class names and the picture's size stand in other files; those beside it are looked for.
    """
    labels = options.labels if options.labels is not None else _labels_near(options.folder)
    lines = [(f"line {number}", line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if labels is None and any(whole_number(words[0]) is not None for _, words in lines):
        report.error(
            "$",
            "is a YOLO label file, whose classes are numbers",
            "name them with --labels classes.txt (or data.yaml, or dog,cat,...)",
        )
        return []
    picture = _picture_near(options)
    canvas = Canvas(*picture[1]) if picture is not None and options.canvas is None else default_canvas(report, options)
    instances = read_entries(report, lines, lambda entry, path, words: _yolo(entry, path, words, labels or (), canvas))
    scene = make_scene(report, None, instances, canvas)
    name = picture[0] if picture is not None else ""
    return [] if scene is None else [NamedScene(scene_name(options.name.removesuffix(".txt")), scene, 1, name)]


def _yolo(report: Report, path: str, words: list[str], labels: Sequence[str], canvas: Canvas) -> Instance | None:
    caption: str | None = words[0]
    index = whole_number(words[0])  # tools that keep all numbers in one array write 16.0
    if index is not None:
        caption = labels[index] if 0 <= index < len(labels) else None
        if caption is None:
            report.fault(path, f"has the class {words[0][:20]}, and {len(labels)} are named", "name every class")
            return None
    values = plain_numbers(words[1:])
    if values is None or len(values) < 4:
        report.fault(path, "holds too few numbers, or something that is none", "write a class and its numbers")
        return None
    if any(not -0.5 <= value <= 1.5 for value in values[:4]):
        report.fault(path, "leaves the picture by far", "lengths are fractions of the picture in 0..1")
        return None
    if len(values) >= 6 and len(values) % 2 == 0:
        points = [(x * canvas.width, y * canvas.height) for x, y in zip(values[::2], values[1::2], strict=True)]
        return make_instance(report, path, caption, mask=polygon_of(report, path, points, canvas))
    if len(values) > 5:  # four of the box, three for each joint of a pose; five are a box and how sure a detector was
        report.warn(path, "has key points, which are not read")
    x, y, width, height = values[:4]
    corners = [
        (x - width / 2) * canvas.width,
        (y - height / 2) * canvas.height,
        (x + width / 2) * canvas.width,
        (y + height / 2) * canvas.height,
    ]
    return make_instance(report, path, caption, box=box_of(report, path, _tidied(corners, canvas), canvas))


def _tidied(corners: list[float], canvas: Canvas) -> list[float]:
    """Corners without what rounding in the file has put beyond the edge: less than half a pixel."""
    sides = (canvas.width, canvas.height) * 2
    return [
        0.0 if -0.5 < value < 0 else float(side) if side < value < side + 0.5 else value
        for value, side in zip(corners, sides, strict=True)
    ]


def read_labels(source: Path) -> list[str] | None:
    """Class names of a file: one in each line, or `names` of a data set's YAML file; None if it holds none.

    A file of more than 64 MB holds none.
    """
    try:
        with open(source, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    if len(content) > MAX_FILE_BYTES:
        return None
    if source.suffix.lower() == ".json":
        categories = re.findall(r'"name"\s*:\s*"([^"\\]*)"', text)
        return categories or None
    if source.suffix.lower() not in (".yaml", ".yml"):
        lines = text.splitlines()
        while lines and not lines[-1].strip():
            lines.pop()
        return [line.strip() for line in lines] or None
    return list(_yaml_names(text)) or None


def _yaml_names(text: str) -> Iterator[str]:
    """The value of `names` in YAML: [a, b], or a line each, with a dash or a number before it."""
    found = re.search(r"^names[ \t]*:[ \t]*(.*)$", text, re.MULTILINE)
    if found is None:
        return
    rest = text[found.start(1) :]
    if rest.lstrip().startswith(("[", "{")):
        inner = re.split(r"[\]}]", rest.lstrip()[1:], maxsplit=1)[0]
        for part in inner.split(","):
            name = re.sub(r"^\s*\d+\s*:", "", part.partition("#")[0]).strip().strip("'\"")
            if name:
                yield name
        return
    for line in rest.splitlines()[1:]:
        entry = re.match(r"\s*(?:-|\d+\s*:)\s*(.*?)\s*(?:#.*)?\Z", line)
        if entry is not None:
            yield entry[1].strip("'\"")
        elif line.strip() and not line.lstrip().startswith("#"):
            return


def _labels_near(folder: Path | None) -> list[str] | None:
    """Class names of a file in the folder or in the two above it, where data sets keep them."""
    for parent in (folder, *list(folder.resolve().parents)[:2]) if folder is not None else ():
        for name in _NAME_FILES:
            if (parent / name).is_file() and (labels := read_labels(parent / name)):
                return labels
    return None


def _picture_near(options: ReadOptions) -> tuple[str, tuple[int, int]] | None:
    """The picture that a label file goes with: of the same name, beside it or in `images` where it is in `labels`."""
    if options.folder is None or not options.name:
        return None
    folder, stem = options.folder.resolve(), Path(options.name).stem
    folders = [folder, folder.parent / "images"]
    parts = folder.parts
    if "labels" in parts:
        last = len(parts) - 1 - parts[::-1].index("labels")
        folders.append(Path(*parts[:last], "images", *parts[last + 1 :]))
    for path in (parent / f"{stem}{suffix}" for parent in folders for suffix in PICTURE_SUFFIXES):
        size = picture_size(path) if path.is_file() else None
        if size is not None:
            return path.name, size
    return None


def _is_lmd(text: str) -> bool:
    """Whether a text has the line `Objects: [(...), ...]`."""
    return _LMD_HEAD.search(text) is not None


def read_lmd(text: str, report: Report, options: ReadOptions) -> list[NamedScene]:
    """Read the one scene of an answer of LLM-grounded diffusion: [x, y, width, height] on 512 x 512 pixels."""
    head = _LMD_HEAD.search(text)
    begin = head.end() - 1 if head is not None else 0
    written = _bracketed(text[begin : begin + 100_000])
    try:
        objects = ast.literal_eval(written)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        report.error("Objects", "is no list that can be read", "write [('a dog', [x, y, width, height]), ...]")
        return []
    canvas = Canvas(*(options.canvas or _LMD_CANVAS))
    entries = [(f"Objects[{index}]", item) for index, item in enumerate(objects)]
    instances = read_entries(report, entries, lambda entry, path, item: _lmd(entry, path, item, canvas))
    parts = {name: _line(text, name) for name in ("Caption", "Background prompt", "Negative prompt")}
    prompt = parts["Caption"]
    if prompt is None:
        captions = list(dict.fromkeys(instance.caption for instance in instances))
        prompt = ", ".join([*([parts["Background prompt"]] if parts["Background prompt"] else []), *captions])
    negative = parts["Negative prompt"]
    negative = None if negative is None or negative.lower() in ("none", "none.") else negative
    scene = make_scene(report, prompt, instances, canvas, negative)
    return [] if scene is None else [NamedScene(scene_name(Path(options.name).stem or "scene"), scene)]


def _bracketed(text: str) -> str:
    """The text up to the bracket that closes its first."""
    depth, quote, skip = 0, "", False
    for index, letter in enumerate(text):
        if skip:
            skip = False
        elif quote:
            skip = letter == "\\"
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "[(":
            depth += 1
        elif letter in "])":
            depth -= 1
            if depth == 0:
                return text[: index + 1]
    return text


def _line(text: str, name: str) -> str | None:
    found = re.search(rf"^[ \t]*{name}[ \t]*:[ \t]*(\S.*?)[ \t]*$", text, re.MULTILINE | re.IGNORECASE)
    return found[1] if found is not None else None


def _lmd(report: Report, path: str, item: Any, canvas: Canvas) -> Instance | None:
    if isinstance(item, dict):
        item = (item.get("name", item.get("label")), item.get("bounding_box", item.get("box")))
    box = plain_numbers(item[1], 4) if is_array(item) and len(item) == 2 else None
    if box is None:
        report.fault(path, f"is {show(item)}", "write ('a dog', [x, y, width, height])")
        return None
    x, y, width, height = box
    if width <= 0 or height <= 0:
        report.fault(path, f"has no area: {show(item[1])}", "write [x, y, width, height]")
        return None
    return make_instance(report, path, item[0], box=box_of(report, path, [x, y, x + width, y + height], canvas))


YOLO = register(SceneFormat("yolo", "a YOLO label file", "text", _is_yolo, read_yolo))
LMD = register(SceneFormat("lmd", "an answer of LLM-grounded diffusion", "text", _is_lmd, read_lmd))
