"""What readers and writers of data sets share: bounded reading, finding pictures, names."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from instancediffusion.errors import Problem, SceneError
from instancediffusion.scene import json_text
from instancediffusion.scene.formats.foreign.entries import scene_name
from instancediffusion.scene.limits import MAX_FILE_BYTES
from instancediffusion.scene.problem_report import Report

MAX_ENTRIES = 20_000_000


def refuse(path: Path, message: str, fix: str) -> SceneError:
    """The error of a file that cannot be read at all."""
    return SceneError([Problem("$", message, fix)], os.fspath(path))


def read_bounded(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """The content of a file.

    Raises:
        SceneError: it is larger than the limit.
        OSError: it cannot be opened.
    """
    with open(path, "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise refuse(path, f"is larger than {limit >> 20} MB", "split it")
    return content


def read_json(path: Path, limit: int = MAX_FILE_BYTES) -> Any:
    """The data of a JSON file; `SceneError` with where it stops being JSON."""
    report = Report()
    data = json_text.parse(report, read_bounded(path, limit))
    report.settle(os.fspath(path))
    return data


def files_under(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Files with one of these suffixes in a folder and below it, in order; links to folders are not followed.

    Pipes and devices, which may be read for ever, are no files.
    """
    wanted, found = tuple(suffixes), list[str]()
    for root, folders, names in os.walk(folder.as_posix()):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [f"{root}/{name}" for name in names if not name.startswith(".") and name.lower().endswith(wanted)]
    return [Path(path) for path in sorted(filter(_ends, found), key=lambda path: path.split("/"))]


def _ends(path: str) -> bool:
    """Whether reading comes to an end; a link that leads nowhere is told of when it is read."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True


def find_picture(folders: Iterable[Path], file_name: str) -> Path | None:
    """A picture that annotations name, in one of several folders: with the folders of its name, else without.

    Names of other systems and of services (`drives`, `https://...`) are taken by their last part. A name
    that leads out of a folder finds nothing there.
    """
    parts = [part for part in re.split(r"[/\\]", file_name.split("?")[0]) if part not in ("", ".")]
    if not parts or "\0" in file_name:
        return None
    inside = ".." not in parts and ":" not in parts[0] and not file_name.startswith(("/", "\\"))
    for folder in folders:
        candidates = [folder.joinpath(*parts)] if inside else []
        for path in (*candidates, *([folder / parts[-1]] if parts[-1] != ".." else [])):
            try:
                if path.is_file():
                    return path
            except OSError:  # a name that is too long for this system
                continue
    return None


class Names:
    """Names of files that are safe and differ, on disks that ignore case, too."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def free(self, file_name: str, suffix: str, default: str) -> str:
        """A name like that of a file, without folders, whose stem no other has; `default` if it has none."""
        stem = scene_name(file_name) if file_name.strip() else default
        found, number = stem, 2
        while found.casefold() in self._used:
            found, number = f"{stem}-{number}", number + 1
        self._used.add(found.casefold())
        own = Path(file_name).suffix
        same = {own.lower(), suffix} <= {".jpg", ".jpeg"}
        return found + (own if same and found + own == file_name else suffix)


class Numbers:
    """Numbers of pictures, each once: their own where they are whole numbers that no other has.

    Args:
        first: what is counted from where there are none.
        lowest: own numbers below are not kept.
    """

    def __init__(self, first: int, lowest: float = float("-inf")) -> None:
        self._lowest, self._used, self._next = lowest, set[int](), first

    def free(self, own: int | str) -> int:
        """The picture's own number, or one beyond all that were given out."""
        given = own if isinstance(own, int) and own >= self._lowest and own not in self._used else self._next
        self._next = max(self._next, given + 1) if self._used else given + 1
        self._used.add(given)
        return given

    def own_or_free(self, own: int | str) -> int | str:
        """The same where texts are kept, too."""
        return own if isinstance(own, str) else self.free(own)


def save_text(path: Path, text: str) -> None:
    """Write the annotations of one picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def numbered(categories: dict[int | str, str], names: Iterator[str]) -> dict[str, int]:
    """Numbers 0, 1, ... of category names: the declared ones in their order, then the others in theirs."""
    numbers: dict[str, int] = {}
    for name in (*categories.values(), *names):
        numbers.setdefault(name, len(numbers))
    return numbers
