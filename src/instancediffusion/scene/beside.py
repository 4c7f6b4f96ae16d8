"""Files that a scene names beside itself, or holds as text."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path, PurePosixPath

from .problem_report import Report, show


def file_bytes(
    report: Report, path: str, source: str, folder: Path | None, what: str, uris: tuple[str, ...], most_bytes: int
) -> bytes | None:
    """Return a file given in the scene itself or beside it; `uris` are the beginnings of the former."""
    if source.startswith("data:"):
        for start in uris:
            if source.startswith(start):
                try:
                    return base64.b64decode(source.removeprefix(start), validate=True)
                except (binascii.Error, ValueError):
                    break
        report.error(path, f"is not the text of a {what}", f'write "{uris[0]}..."')
        return None
    name = PurePosixPath(source)
    if "\\" in source or "\0" in source or ":" in source or name.is_absolute() or ".." in name.parts:
        fix = f"put the {what} into the scene's folder and name it relative to that, with /"
        report.error(path, f"{show(source)} may lie outside the scene's folder", fix)
        return None
    if folder is None:
        report.error(path, f"names the file {show(source)}, but the scene has no folder", "load it from a file")
        return None
    try:
        # A link may lead anywhere, so what counts is where it ends.
        target = (folder / name).resolve()
        if not target.is_relative_to(folder.resolve()) or not target.is_file():
            report.error(path, f"{show(source)} is no file in the scene's folder", "correct the name")
            return None
        if target.stat().st_size > most_bytes:
            report.error(path, f"{show(source)} is larger than {most_bytes >> 20} MB", "save it compressed")
            return None
        return target.read_bytes()
    except OSError as error:
        report.error(path, f"{show(source)} cannot be read ({error.strerror})", "correct the name")
        return None
