"""The formats of scene files, by name: each one object that recognises, reads and writes. `register` adds another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..model import Scene
from ..problem_report import Report
from .foreign.entries import NamedScene, ReadOptions

Reader = Callable[[Any, Report, ReadOptions], list[NamedScene]]


@dataclass(frozen=True)
class SceneFormat:
    """How a format is recognised, read and written.

    Attributes:
        name: what it is called on the command line.
        title: what it is called in messages ("a LabelMe file").
        syntax: what a file is parsed as before it is looked at: a JSON value, the root of an XML tree
            (`xml.etree.ElementTree.Element`), a text, or the notes of a PNG picture.
        recognise: whether such content is of this format; it is asked of any content of that syntax.
        read: the scenes of such content; problems go into the report. None: it is known and not read.
        lenient: whether a fault in an object leaves out that object, instead of refusing the file.
        write: the text of a file of one scene; None: it is not written.
        fix: what to do with a file that is not read.
    """

    name: str
    title: str
    syntax: Literal["json", "xml", "text", "picture"] = "json"
    recognise: Callable[[Any], bool] = lambda _: False
    read: Reader | None = None
    lenient: bool = True
    write: Callable[[Scene], str] | None = None
    fix: str = ""


FORMATS: dict[str, SceneFormat] = {}
"""The formats by name. The last one is asked first whether a file is its own, so that new ones go before ours."""


def register(format: SceneFormat) -> SceneFormat:
    """Add a format of your own, or replace one: it is then read, and written, by every function and command.

    Raises:
        ValueError: it is not read, and no `fix` says what to do with such a file.
    """
    if format.read is None and not format.fix:
        raise ValueError(f"{format.name}: is not read; say in `fix` what to do with such a file")
    FORMATS[format.name] = format
    return format


def format_of(content: Any, syntax: str) -> SceneFormat | None:
    """The format of parsed content."""
    known = (format for format in reversed(FORMATS.values()) if format.syntax == syntax)
    return next((format for format in known if format.recognise(content)), None)


class _Titles(Mapping[str, str]):
    """A view of the formats that are read."""

    def __getitem__(self, name: str) -> str:
        format = FORMATS[name]
        if format.read is None:
            raise KeyError(name)
        return format.title

    def __iter__(self) -> Iterator[str]:
        return (name for name, format in FORMATS.items() if format.read is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


READ: Mapping[str, str] = _Titles()
"""The formats that are read, name -> title."""


def written() -> tuple[str, ...]:
    """The names of the formats in which a scene is written."""
    return tuple(name for name, format in FORMATS.items() if format.write is not None)
