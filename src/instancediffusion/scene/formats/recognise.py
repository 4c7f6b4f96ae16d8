"""What a file is, by its content: looked at before it is parsed as anything."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import json_text
from ..limits import MAX_FILE_BYTES
from ..notes import PREFIX, png_texts
from ..problem_report import Report, show
from .foreign.xml_files import parse_xml
from .native import SCENE_KEYS, instance_keys
from .scene_format import FORMATS, READ, SceneFormat, format_of

OWN = ("native", "official")
"""The formats in which a key that is given twice is an error."""


@dataclass(frozen=True)
class Recognised:
    """What a file is.

    Attributes:
        format: one of `READ`, or empty if it is not read.
        content: for the reader: JSON data, an XML root, text, or the notes of a picture.
    """

    format: str
    content: Any = None


def recognise(data: bytes, report: Report, wanted: str | None = None) -> Recognised:
    """Find out what a file is; what is not read is an error that names it and says how to go on.

    Args:
        data: the content.
        report: takes the problems.
        wanted: the format it is to be read as, whatever it looks like; one of `READ`.
    """
    found = _recognised(data, report, wanted)
    if wanted is not None and found.format not in ("", wanted):
        report.error("$", f"is {READ[found.format]}, not {READ[wanted]}", "leave --from out, or give another file")
        return Recognised("")
    return found


def _recognised(data: bytes, report: Report, wanted: str | None) -> Recognised:
    found = _pictures(data, report) or _binaries(data, report)
    if found is not None:
        return found
    try:
        written = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        fix = "save the file as UTF-8" + (", not as UTF-16" if utf16 else "")
        report.error("$", f"is not UTF-8 text (byte {error.start})", fix)
        return Recognised("")
    plain = _without_fence(written)
    if wanted is not None and FORMATS[wanted].syntax == "text":
        return Recognised(wanted, plain)
    if plain.lstrip()[:1] == "<":
        return _xml(plain, report)
    if plain.lstrip()[:1] in ("{", "["):
        return _json(plain.encode(), data, report, wanted)
    known = format_of(plain, "text")
    if known is not None:
        return _as(known, plain, report)
    return _other_text(plain, data, report)


def _pictures(data: bytes, report: Report) -> Recognised | None:
    """PNG files of ours are read; those of other programs, and other pictures, are named."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        kind = _picture_kind(data)
        if kind is None:
            return None
        program = _program_of(data) if kind in ("JPEG", "WebP") else None
        if program is not None:
            return _named(report, f"a {kind} picture made by {program}, and holds no scene", _FOREIGN_PICTURE)
        return _named(report, f"a {kind} picture, and holds no scene", _NO_SCENE)
    try:
        texts = png_texts(io.BytesIO(data))
    except (ValueError, OSError) as error:
        return _named(report, f"a PNG picture that is damaged ({str(error)[:60]})", "copy it anew")
    notes = {name.removeprefix(PREFIX): value for name, value in texts.items() if name.startswith(PREFIX)}
    if "scene" in notes:
        try:
            return Recognised("picture", {name: json.loads(value) for name, value in notes.items()})
        except (ValueError, RecursionError):
            return _named(report, "a PNG picture whose notes are damaged", "make the picture anew")
    for key, program in _PROGRAMS.items():
        if key in texts:
            return _named(report, f"a PNG picture made by {program}, and holds no scene", _FOREIGN_PICTURE)
    return _named(report, "a PNG picture that carries no scene", _NO_SCENE)


def _program_of(data: bytes) -> str | None:
    """The program that made a JPEG or WebP picture, as its EXIF data state it."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=["JPEG", "WEBP"]) as image:
            exif = image.getexif()
            values = [*exif.values(), *exif.get_ifd(0x8769).values()]
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    # A comment in EXIF begins with the name of its encoding, and may be UTF-16.
    texts = [
        value.replace(b"\0", b"").decode("latin-1") if isinstance(value, bytes) else str(value) for value in values
    ]
    if any("class_type" in text or text.lower().startswith("workflow:") for text in texts):
        return _PROGRAMS["workflow"]
    return _PROGRAMS["parameters"] if any("Steps: " in text for text in texts) else None


_PROGRAMS = {
    "workflow": "ComfyUI (it carries its workflow)",
    "prompt": "ComfyUI (it carries its workflow)",
    "parameters": "AUTOMATIC1111's web UI or one of its kin (it carries its parameters)",
    "invokeai_metadata": "InvokeAI (it carries its metadata)",
    "invokeai_graph": "InvokeAI (it carries its graph)",
    "sd-metadata": "InvokeAI (it carries its metadata)",
    "Dream": "InvokeAI (it carries its metadata)",
    "fooocus_scheme": "Fooocus (it carries its parameters)",
    "Comment": "another program (it carries a comment)",
}
_FOREIGN_PICTURE = "only pictures made here carry a scene; open it where it was made, and write its prompt anew"
_NO_SCENE = (
    "give the scene file, or a PNG as this program wrote it (saving it elsewhere removes the scene); "
    "`scene render --background` draws on a picture"
)


def _picture_kind(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"avif", b"msf1"):
        return "HEIF"
    heads = {b"\xff\xd8\xff": "JPEG", b"GIF8": "GIF", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"BM": "BMP"}
    found = next((kind for head, kind in heads.items() if data.startswith(head)), None)
    return found if found != "BMP" or data[6:10] == b"\0\0\0\0" else None


def _binaries(data: bytes, report: Report) -> Recognised | None:
    """Weights, archives and documents, which have nothing to do with scenes."""
    weights = "give weights with --model or --adapter, or to `instancediffusion convert`"
    if data[:4] == b"PK\x03\x04":
        names = data[:4096]
        if b"data.pkl" in names or b"/data/" in names:
            return _named(report, "a file of weights (PyTorch)", weights)
        if b".npy" in names:
            return _named(report, "a NumPy archive", "write the scene as JSON")
        return _named(report, "a ZIP archive", "unpack it, and give the files in it")
    if data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return _named(report, "a pickle, such as old PyTorch weights", weights)
    length = int.from_bytes(data[:8], "little")
    if data[8:9] == b"{" and 2 <= length < 1 << 27 and b'"dtype"' in data[8:4096] + data[8 : 8 + length][:4096]:
        return _named(report, "a file of weights (safetensors)", weights)
    heads = {
        b"\x93NUMPY": ("a NumPy array", "write the scene as JSON"),
        b"\x1f\x8b": ("a gzip archive", "unpack it"),
        b"%PDF": ("a PDF document", "give the scene as JSON"),
        b"SQLite format 3": ("an SQLite database", "give one of the pictures beside it, or a scene file"),
        b"\x89HDF": ("an HDF5 file", "export the annotations as COCO JSON"),
        b"GGUF": ("a file of weights (GGUF)", weights),
    }
    found = next((value for head, value in heads.items() if data.startswith(head)), None)
    return None if found is None else _named(report, *found)


def _without_fence(written: str) -> str:
    """The inside of a Markdown code block, which language models put around JSON."""
    found = re.search(r"```[A-Za-z]*[ \t]*\r?\n(.*?)\r?\n?```", written, re.DOTALL)
    return found[1] if found is not None and written.lstrip()[:1] not in ("{", "[", "<") else written


def _xml(written: str, report: Report) -> Recognised:
    head = written.lstrip()[:2000].lower()
    if "<svg" in head:
        return _named(report, "an SVG drawing", "give the scene file; `scene render` draws one as SVG")
    if "<html" in head or "<!doctype html" in head:
        return _named(report, "a web page", "was the download a log-in page? fetch the file itself")
    root = parse_xml(written)
    if root is None:
        return _named(report, "XML that is damaged, or declares entities, which are not read", "export it anew")
    known = format_of(root, "xml")
    if known is not None:
        return _as(known, root, report)
    return _named(report, f"an XML file of no known format (<{root.tag[:40]}>)", _readable())


def _json(written: bytes, data: bytes, report: Report, wanted: str | None) -> Recognised:
    value = json_text.parse(report, written)
    if value is None and report.failed:
        several = _json_lines(written) if written == data.removeprefix(b"\xef\xbb\xbf") else None
        if several is None:
            return Recognised("")
        report.problems.clear()
        report.error_count = 0
        value = several
    known = FORMATS[wanted] if wanted is not None else format_of(value, "json")
    if report.failed and (known is None or known.name not in OWN):
        # A key that some entry gives twice: of other programs' files the rest goes on.
        twice = report.problems[:]
        report.problems.clear()
        report.error_count = 0
        for problem in twice:
            report.warn(problem.path, f"{problem.message}; the last one is read", problem.fix)
    if known is None or known.syntax != "json":
        known = format_of(value, "json")
    elif wanted is not None:
        return Recognised(wanted, value)
    if known is None:
        return _unknown_json(value, report)
    if known.read is not None and known.name != "coco" and len(data) > MAX_FILE_BYTES:
        limit = MAX_FILE_BYTES >> 20
        report.error("$", f"is larger than {limit} MB", "put masks in PNG files, or use fewer instances")
        return Recognised("")
    return _as(known, value, report)


def _json_lines(written: bytes) -> list[Any] | None:
    """The values of a file that holds one JSON object in each line, or None."""
    lines = [line for line in written.splitlines() if line.strip()]
    if len(lines) < 2 or not all(line.lstrip().startswith(b"{") for line in lines):
        return None
    try:
        return [json.loads(line) for line in lines]
    except (ValueError, RecursionError):
        return None


def _as(format: SceneFormat, content: Any, report: Report) -> Recognised:
    """The format's name with the content, or its name and what to do, where it is not read."""
    return _named(report, format.title, format.fix) if format.read is None else Recognised(format.name, content)


def _readable() -> str:
    return "formats that are read: " + ", ".join(READ)


def _unknown_json(value: Any, report: Report) -> Recognised:
    if isinstance(value, Mapping):
        keys = ", ".join(list(value)[:6]) + (", ..." if len(value) > 6 else "")
        what = f"a JSON file of no known format (its keys are {keys[:120]})"
    else:
        what = f"a JSON list of no known format ({show(value)[:80]})"
    fix = f"a scene has the keys {', '.join(SCENE_KEYS[:5])}, and each instance {instance_keys()[0]} and a location"
    return _named(report, what, f"{fix}; {_readable()}")


def _other_text(written: str, data: bytes, report: Report) -> Recognised:
    lines = [line for line in written.splitlines() if line.strip()]
    first = lines[0] if lines else ""
    if re.match(r"(%YAML|---|names\s*:|train\s*:|path\s*:|[A-Za-z_]+\s*:\s*$)", first):
        fix = "give the label files (labels/*.txt), and this one with --labels"
        return _named(report, "a YAML file, such as describes a YOLO data set", fix)
    separators = [first.count(mark) for mark in (",", ";", "\t")]
    if len(lines) > 1 and max(separators) >= 3 and lines[1].count(",;\t"[separators.index(max(separators))]):
        return _named(report, "a table (CSV)", f"write it as one of the formats that are read: {', '.join(READ)}")
    value = json_text.parse(Report(), data)
    if value is None and first and not first.strip()[:1].isdigit() and first.strip() != "null":
        return _named(report, f"text, and no scene (it begins with {show(first.strip()[:40])})", _readable())
    value = json_text.parse(
        report, data
    )  # says where it stops being JSON; if it is, its reader says that it is no object
    return Recognised("" if report.failed else "native", value)


def _named(report: Report, what: str, fix: str) -> Recognised:
    report.error("$", f"is {what}", fix)
    return Recognised("")
