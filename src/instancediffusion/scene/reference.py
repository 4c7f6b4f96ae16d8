"""A picture of an object, as an example of what it is to look like."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

from .limits import MAX_REFERENCE_BYTES, MAX_REFERENCE_PX
from .problem_report import Report, kind

_MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
REFERENCE_URIS = tuple(f"data:{media};base64," for media in _MEDIA_TYPES.values())
"""How a picture in the text of a scene begins."""


@dataclass(frozen=True)
class Reference:
    """A picture to be shown to an image prompt adapter (IP-Adapter).

    Attributes:
        data: the bytes of a PNG, JPEG or WebP file, at most 16 MB and 4096 x 4096 pixels.

    Raises:
        SceneError: it is no such file, or too large.
    """

    data: bytes

    def __post_init__(self) -> None:
        report = Report()
        data: object = self.data
        if isinstance(data, bytes):
            _check(report, data)
        else:
            report.error("$.data", f"is {kind(data)}, not bytes", "give the bytes of a file, or use from_image")
        report.settle()

    @classmethod
    def from_image(cls, image: Any) -> Reference:
        """Keep a PIL image, as a PNG."""
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return cls(buffer.getvalue())

    @property
    def image(self) -> Any:
        """The picture as a PIL image in RGB, what is transparent on white."""
        from PIL import Image

        with Image.open(io.BytesIO(self.data), formats=list(_MEDIA_TYPES)) as opened:
            return on_white(opened)

    @property
    def data_uri(self) -> str:
        """The file as text, as it stands in a scene."""
        head = self.data[:12]
        name = "PNG" if head.startswith(b"\x89PNG") else "WEBP" if head.startswith(b"RIFF") else "JPEG"
        return f"data:{_MEDIA_TYPES[name]};base64,{base64.b64encode(self.data).decode()}"

    def __repr__(self) -> str:
        return f"Reference({len(self.data)} bytes)"


def _check(report: Report, data: bytes) -> None:
    from PIL import Image

    if len(data) > MAX_REFERENCE_BYTES:
        report.error("$", f"is larger than {MAX_REFERENCE_BYTES >> 20} MB", "save the picture smaller")
        return
    try:
        with Image.open(io.BytesIO(data), formats=list(_MEDIA_TYPES)) as opened:  # reads the header alone
            if max(opened.size) > MAX_REFERENCE_PX:
                message = f"is {opened.width} x {opened.height} pixels"
                report.error("$", message, f"use at most {MAX_REFERENCE_PX} on each side")
                return
            opened.load()
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = str(error).replace("<_io.BytesIO object at ", "<")[:80]
        report.error("$", f"is not a picture that can be read ({reason})", "save it as PNG, JPEG or WebP")


def on_white(picture: Any) -> Any:
    """A PIL image in RGB, what is transparent on white."""
    from PIL import Image

    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
