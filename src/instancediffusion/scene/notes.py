"""PNG files that carry how they were made: scene, settings, seed and model in text chunks."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from instancediffusion.errors import InstanceDiffusionError

if TYPE_CHECKING:
    from PIL import Image

PREFIX = "instancediffusion:"
"""What the keywords of our text chunks begin with; each holds JSON."""


def png_bytes(image: Image.Image, notes: Mapping[str, Any]) -> bytes:
    """Encode a picture as PNG.

    Args:
        image: the picture.
        notes: JSON-like values by name; each becomes a text chunk. Chunks are not compressed, because readers refuse
            large compressed ones, and the masks in scenes are compressed already.
    """
    from PIL import PngImagePlugin

    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Software", "instancediffusion")
    for name, value in notes.items():
        chunks.add_itxt(PREFIX + name, json.dumps(value, ensure_ascii=False, allow_nan=False))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=chunks)
    return buffer.getvalue()


def read_notes(path: str | os.PathLike[str] | BinaryIO) -> dict[str, Any]:
    """Read back the notes of a picture that `png_bytes` encoded.

    `Scene.from_dict(read_notes(path)["scene"])` is the scene it was made from.

    Args:
        path: the file, or its content as an open binary file.

    Raises:
        InstanceDiffusionError: the file is no PNG, or its notes are damaged.
        OSError: the file cannot be opened.
    """
    try:
        return notes_of(png_texts(path))
    except (ValueError, RecursionError) as error:
        name = os.fspath(path) if isinstance(path, str | os.PathLike) else "the picture"
        raise InstanceDiffusionError(f"{name}: not a picture of ours ({error})") from None


def notes_of(texts: Mapping[str, str]) -> dict[str, Any]:
    """The notes among the text chunks of a picture; `ValueError` if they are damaged."""
    return {name.removeprefix(PREFIX): json.loads(text) for name, text in texts.items() if name.startswith(PREFIX)}


def png_texts(path: str | os.PathLike[str] | BinaryIO) -> dict[str, str]:
    """Every text chunk of a PNG by its keyword; `ValueError` if it is none or damaged."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()  # chunks may stand behind the pixels
            return dict(getattr(image, "text", {}))
    except (SyntaxError, UnidentifiedImageError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from None
