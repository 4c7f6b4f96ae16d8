"""Entries on their way into a data set, and notes of them for the next time that it is written.

A data set that is written again after a few pictures were added is the same as one written from nothing, but what has
not changed is neither read nor made again: notes beside it hold what was written of each entry, and the files of the
pictures, which are linked into the new folder.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instancediffusion import __version__
from instancediffusion.runs import atomic_path


@dataclass
class Entry:
    """An example on its way into a data set.

    Attributes:
        file_name: of its picture, unlike all others.
        image_id: its number or text, which others may have, too.
        content: what the format's `describe` made of the example; without one, the example itself.
        image: the bytes of the picture, None if `kept` has them.
        kept: the picture's file in the data set that is replaced.
        saved: where `save` put the picture.
    """

    file_name: str
    image_id: int | str
    content: Any
    image: bytes | None = field(default=None, repr=False)
    kept: Path | None = None
    saved: Path | None = None

    def save(self, folder: Path) -> None:
        """Put the picture into a folder; the index of a data set, written last, says that everything is there."""
        folder.mkdir(parents=True, exist_ok=True)
        self.saved = folder / self.file_name
        if self.kept is None:
            assert self.image is not None, "a picture has bytes or a file"
            self.saved.write_bytes(self.image)
            return
        try:
            os.link(self.kept, self.saved)  # the other name goes with the folder that is replaced
        except OSError:  # a file system without links
            shutil.copy2(self.kept, self.saved)


@dataclass
class Line:
    """What was written of an entry.

    Attributes:
        content: see `Entry`; None if the format holds nothing of the example.
        own_name: the picture's file, as the example names it.
        suffix: of the file that was written.
        image_id: see `Entry`.
        instances: how many were written.
        lost: what the format could not hold.
        path: of the picture in the data set.
        stamp: its length and time.
    """

    content: Any
    own_name: str = ""
    suffix: str = ""
    image_id: int | str = 1
    instances: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    path: str = ""
    stamp: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Notes:
    """Where notes of a data set are, and what they are about.

    Attributes:
        file: the notes; whatever it holds, the data set comes out the same. Replaced when the data set is written.
        folder: the data set that they are of, which is read while another one is written.
        marks: of each entry, a line of text that changes whenever the entry or its picture does, and that no other has.
    """

    file: Path
    folder: Path
    marks: Sequence[str]

    def read(self, format: str) -> dict[str, str]:
        """Mark -> the JSON of a `Line`; nothing if they are of another format or version, or there are none."""
        try:
            with open(self.file, encoding="utf-8") as lines:
                if json.loads(next(lines, "null")) != _head(format):
                    return {}
                return {mark: text for line in lines for mark, _, text in [line.partition("\t")] if text}
        except (OSError, ValueError):
            return {}

    def find(self, known: dict[str, str], index: int) -> Line | None:
        """What was written of an entry, if its picture is still there as it was written."""
        text = known.get(self.marks[index])
        if text is None:
            return None
        try:
            line = Line(*json.loads(text))
            return line if line.content is None or stamp_of(self.folder / line.path) == line.stamp else None
        except (OSError, ValueError, TypeError):  # not whole: then it is made again
            return None

    @contextmanager
    def writing(self, format: str, folder: Path) -> Iterator[Callable[[int, Line, Entry | None], None]]:
        """Give what notes an entry that was written into a folder: its number, line, and what the format was given."""
        with atomic_path(self.file) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.write(json.dumps(_head(format)) + "\n")

            def note(index: int, line: Line, entry: Entry | None) -> None:
                if entry is not None and entry.saved is None:
                    return  # its picture is no file of its own
                if entry is not None and entry.saved is not None:
                    line.path = os.path.relpath(entry.saved, folder)
                    line.stamp = line.stamp if entry.kept is not None else stamp_of(entry.saved)
                file.write(f"{self.marks[index]}\t{json.dumps(list(vars(line).values()))}\n")

            yield note


def _head(format: str) -> list[str]:
    return ["notes of a data set", __version__, format]


def stamp_of(path: Path) -> list[int]:
    """Length and time of a file."""
    facts = os.stat(path)
    return [facts.st_size, facts.st_mtime_ns]


def files_in(folder: Path) -> Iterator[str]:
    """The paths of all files in a folder and below it."""
    return (os.path.join(root, name) for root, _, names in os.walk(folder) for name in names)


def put_in_place(fresh: Path, folder: Path, aside: Path) -> None:
    """Replace a folder by another one; `aside` is where it stands meanwhile."""
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        folder.rename(aside)
    fresh.rename(folder)
    shutil.rmtree(aside, ignore_errors=True)


def bring_back(folder: Path, aside: Path) -> None:
    """Put a folder back that was set aside by a process that was stopped before it put the other one in its place."""
    if aside.is_dir() and not folder.exists():
        aside.rename(folder)
