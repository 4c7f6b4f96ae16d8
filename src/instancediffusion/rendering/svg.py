"""The same strokes as SVG text."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt
from PIL import Image

from .painter import Path, Rect, text_width
from .palette import PAPER, Colour

# Characters that XML 1.0 has no way to write.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class SvgPainter:
    """Collects SVG elements.

    Args:
        size: (height, width) of the picture.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size
        self._elements: list[str] = []
        self.rectangle((0, 0, size[1], size[0]), fill=PAPER)

    def finish(self) -> str:
        """Return the text of the file."""
        height, width = self._size
        head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        head += f'viewBox="0 0 {width} {height}" font-family="Helvetica, Arial, sans-serif">'
        return "\n".join([head, *self._elements, "</svg>"]) + "\n"

    def picture(self, image: Image.Image, box: Rect) -> None:
        """Put a picture into a box."""
        content = io.BytesIO()
        image.convert("RGB").save(content, "PNG")
        data = base64.b64encode(content.getvalue()).decode("ascii")
        self._add("image", _place(box) + f' preserveAspectRatio="none" href="data:image/png;base64,{data}"')

    def rectangle(
        self, box: Rect, *, fill: Colour | None = None, opacity: float = 1.0, stroke: Colour | None = None,
        width: float = 1.0, radius: float = 0.0,
    ) -> None:  # fmt: skip
        """Draw a rectangle; `opacity` is that of the filling."""
        inset = width / 2 if stroke else 0.0  # SVG draws a line on the edge, pixels are drawn inside it
        x0, y0, x1, y1 = box
        inner = (x0 + inset, y0 + inset, max(x1 - inset, x0 + inset), max(y1 - inset, y0 + inset))
        look = f' fill="{_hex(fill)}" fill-opacity="{_n(opacity)}"' if fill is not None else ' fill="none"'
        look += f' stroke="{_hex(stroke)}" stroke-width="{_n(width)}"' if stroke is not None else ""
        self._add("rect", _place(inner) + (f' rx="{_n(radius)}"' if radius else "") + look)

    def line(self, path: Path, *, stroke: Colour, width: float) -> None:
        """Draw a line through points, with round ends."""
        points = " ".join(f"{_n(x)},{_n(y)}" for x, y in path)
        look = f'fill="none" stroke="{_hex(stroke)}" stroke-width="{_n(width)}"'
        self._add("polyline", f'points="{points}" {look} stroke-linecap="round" stroke-linejoin="round"')

    def disc(self, centre: tuple[float, float], radius: float, *, fill: Colour, stroke: Colour, width: float) -> None:
        """Draw a disc with a rim."""
        attributes = f'cx="{_n(centre[0])}" cy="{_n(centre[1])}" r="{_n(radius - width / 2)}"'
        self._add("circle", f'{attributes} fill="{_hex(fill)}" stroke="{_hex(stroke)}" stroke-width="{_n(width)}"')

    def region(self, rings: Sequence[npt.NDArray[np.float64]], *, fill: Colour, opacity: float, width: float) -> None:
        """Fill what lies inside an odd number of rings (k, 2), and draw the rings."""
        path = "".join("M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in ring) + "Z" for ring in rings)
        look = f'fill="{_hex(fill)}" fill-opacity="{_n(opacity)}" fill-rule="evenodd"'
        self._add("path", f'd="{path}" {look} stroke="{_hex(fill)}" stroke-width="{_n(width)}"')

    def text(self, at: tuple[float, float], text: str, *, size: float, fill: Colour) -> None:
        """Write one line; `at` is its upper left corner."""
        clean = _FORBIDDEN.sub("\ufffd", text)
        if not clean.strip():
            return
        # The length is fixed, so that a viewer with another font keeps every label in its frame.
        length = f'textLength="{_n(text_width(clean, size))}" lengthAdjust="spacingAndGlyphs"'
        attributes = f'x="{_n(at[0])}" y="{_n(at[1] + 0.93 * size)}" font-size="{_n(size)}" fill="{_hex(fill)}"'
        self._elements.append(f"<text {attributes} {length}>{escape(clean)}</text>")

    def _add(self, name: str, attributes: str) -> None:
        self._elements.append(f"<{name} {attributes}/>")


def _place(box: Rect) -> str:
    x0, y0, x1, y1 = box
    return f'x="{_n(x0)}" y="{_n(y0)}" width="{_n(x1 - x0)}" height="{_n(y1 - y0)}"'


def _n(value: float) -> str:
    return f"{float(value):.2f}".rstrip("0").rstrip(".")


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
