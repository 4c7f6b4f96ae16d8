"""The typefaces that pictures are lettered in.

Pillow's own face comes with the library, so every machine letters Latin text alike. It has no other script: a line
with letters it lacks takes a face of the system that has them, if there is one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

Face = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Faces of many scripts first, by the systems that bring them; names of files, without their suffix, in small letters.
_WIDE = (
    "notosanscjk-regular", "notosanscjksc-regular", "notosanscjkjp-regular", "sourcehansans-regular",
    "sourcehansanssc-regular", "wqy-zenhei", "wqy-microhei", "droidsansfallbackfull", "droidsansfallback",
    "unifont", "arial unicode", "arialuni", "pingfang", "hiragino sans gb", "hiraginosans-w3", "stheiti light",
    "applegothic", "msyh", "simsun", "msgothic", "yugothm", "meiryo", "malgun", "msjh", "ipaexg", "ipag",
    "takaopgothic", "vlgothic", "nanumgothic", "noto sans regular", "notosans-regular", "notosansarabic-regular",
    "notosansdevanagari-regular", "notosanshebrew-regular", "notosansthai-regular", "freesans", "dejavusans", "segoeui",
    "arial", "liberationsans-regular",
)  # fmt: skip
_chosen: ContextVar[str | None] = ContextVar("chosen", default=None)


@contextmanager
def lettered_in(path: str | os.PathLike[str] | None) -> Iterator[None]:
    """Letter everything in this typeface, until the block ends.

    Args:
        path: a .ttf, .otf or .ttc file; None chooses as if nothing were said.

    Raises:
        ValueError: it is no typeface that can be read.
    """
    if path is not None:
        try:
            ImageFont.truetype(os.fspath(path), 12)
        except OSError as error:
            raise ValueError(f"{os.fspath(path)} is no typeface that can be read ({error})") from error
    token = _chosen.set(None if path is None else os.fspath(path))
    try:
        yield
    finally:
        _chosen.reset(token)


def face_for(text: str, size: float) -> Face:
    """The face a line is lettered in: the one that was asked for, else the first that has all of its letters."""
    return _face(_chosen.get() or _path_for(_unusual(text)), size)


def _unusual(text: str) -> str:
    """The letters of a text that are not ASCII, each once: what the choice of a face depends on."""
    return "".join(sorted({letter for letter in text if not letter.isascii() and letter.isprintable()}))


@lru_cache(maxsize=1024)
def _path_for(letters: str) -> str | None:
    """The file of the first face that has all the letters, else of the one that has most; None is Pillow's own."""
    best, most = None, _covered(None, letters)
    for path in _system_faces() if most < len(letters) else ():
        count = _covered(path, letters)
        if count > most:
            best, most = path, count
        if most == len(letters):
            break
    return best


def _covered(path: str | None, letters: str) -> int:
    """How many of the letters a face has: those that it does not draw as the box for what it lacks."""
    try:
        face = _face(path, 16)
        missing = [bytes(face.getmask(letter)) for letter in "\ue123\uffff"]
        return sum(bytes(face.getmask(letter)) not in missing for letter in letters)
    except OSError:
        return -1


@lru_cache(maxsize=256)
def _face(path: str | None, size: float) -> Face:
    return ImageFont.load_default(size=size) if path is None else ImageFont.truetype(path, size)


@lru_cache(maxsize=1)
def _system_faces() -> tuple[str, ...]:
    """Faces of this machine that have many letters, the widest first."""
    ranks = {name: rank for rank, name in enumerate(_WIDE)}
    found: dict[str, str] = {}
    for folder in _font_folders():
        for place, _, files in os.walk(folder):
            for file in files:
                stem, _, suffix = file.lower().rpartition(".")
                if suffix in ("ttf", "otf", "ttc") and stem in ranks:
                    found.setdefault(stem, os.path.join(place, file))
    return tuple(found[name] for name in sorted(found, key=lambda name: ranks[name]))


def _font_folders() -> list[Path]:
    home = Path.home()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", home / "AppData/Local")
        return [Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts", Path(local) / "Microsoft/Windows/Fonts"]
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"]
    data = os.environ.get("XDG_DATA_HOME", home / ".local/share")
    return [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path(data) / "fonts", home / ".fonts"]
