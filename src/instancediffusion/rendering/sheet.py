"""Contact sheets: many pictures in a grid."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from .fonts import face_for
from .painter import LINE_HEIGHT
from .palette import INK, PAPER
from .wrap import wrap

_GAP = 8
_SIZE = 13.0


def contact_sheet(images: Sequence[Image.Image], columns: int, labels: Sequence[str] | None = None) -> Image.Image:
    """Put pictures into rows, in reading order.

    Args:
        images: at least one picture. A grid item is as large as the largest; smaller ones are centred in theirs.
        columns: pictures in a row.
        labels: a text for each picture, written below it on up to two lines.

    Returns:
        An RGB picture on white.
    """
    if not images:
        raise ValueError("a contact sheet needs at least one picture")
    if columns < 1:
        raise ValueError(f"columns is {columns}, but a row holds at least one picture")
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"there are {len(labels)} labels for {len(images)} pictures")
    columns = min(columns, len(images))
    width, height = max(image.width for image in images), max(image.height for image in images)
    lines = [wrap(label, width - 4, _SIZE, 2) for label in labels] if labels is not None else []
    text = round(max((len(label) for label in lines), default=0) * _SIZE * LINE_HEIGHT)
    rows = -(-len(images) // columns)
    whole = (columns * (width + _GAP) + _GAP, rows * (height + text + _GAP) + _GAP)
    sheet = Image.new("RGB", whole, PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, image in enumerate(images):
        x = _GAP + index % columns * (width + _GAP)
        y = _GAP + index // columns * (height + text + _GAP)
        sheet.paste(image.convert("RGB"), (x + (width - image.width) // 2, y + (height - image.height) // 2))
        for number, line in enumerate(lines[index] if lines else []):
            place = (x, y + height + 2 + number * _SIZE * LINE_HEIGHT)
            draw.text(place, line, font=face_for(line, _SIZE), fill=INK, anchor="la")
    return sheet
