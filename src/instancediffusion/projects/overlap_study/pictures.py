"""The pictures of a study in its folder: whose they are, what each took, what each is called."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from instancediffusion.runs import RunConflictError, atomic_path, write_json

SETTINGS, SECONDS, PICTURES = "settings.json", "seconds", "pictures"


def claim(folder: Path, decisive: Mapping[str, Any], *, replace: bool = False) -> None:
    """Note what a folder's pictures depend on beside their conditions.

    Raises:
        RunConflictError: it holds those of another model, and `replace` was not asked for.
    """
    noted = folder / SETTINGS
    if noted.exists():
        if json.loads(noted.read_text(encoding="utf-8")) == dict(decisive):
            return
        if not replace:
            raise RunConflictError(
                f"{folder} holds pictures of another model ({SETTINGS} there says which); choose another folder, or "
                "add --overwrite"
            )
        for picture in (folder / PICTURES).rglob("*.png"):
            picture.unlink()
    write_json(noted, dict(decisive))


def picture_path(folder: Path, row: str, decisive: Any) -> Path:
    """The file of a picture of a row of settings, named after the JSON-like values that it depends on."""
    text = json.dumps(decisive, sort_keys=True)
    return folder / PICTURES / row / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.png"


def save_picture(image: Image.Image, seconds: float, path: Path) -> None:
    """Write a picture with the wall time it took."""
    notes = PngInfo()
    notes.add_text(SECONDS, f"{seconds:.3f}")
    with atomic_path(path) as temporary:
        image.save(temporary, "PNG", pnginfo=notes)


def open_picture(path: Path) -> tuple[Image.Image, float]:
    """A picture, and the seconds it took; NaN if it does not say."""
    with Image.open(path) as image:
        return image.convert("RGB"), float(image.info.get(SECONDS, "nan"))
