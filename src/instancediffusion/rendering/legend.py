"""The panel beside the picture: prompt, and every instance in depth order with its caption."""

from __future__ import annotations

from dataclasses import dataclass

from instancediffusion.scene import Instance, Scene

from .painter import LINE_HEIGHT, Painter, text_width
from .palette import FAINT, INK, PAPER, RULE, instance_colour, text_colour
from .wrap import wrap

MAX_ENTRIES = 120
_PAD = 14.0
_TITLE, _BODY, _SMALL = 15.0, 13.0, 11.0


@dataclass(frozen=True)
class _Entry:
    """One instance, or a heading above some (index None)."""

    index: int | None
    lines: list[str]
    note: str

    @property
    def height(self) -> float:
        if self.index is None:
            return _SMALL * LINE_HEIGHT + 10
        return max(len(self.lines) * _BODY * LINE_HEIGHT, 18) + (_SMALL * LINE_HEIGHT if self.note else 0) + 5


class Legend:
    """Lays the panel out for a picture of a certain height.

    Args:
        scene: the scene.
        height: height of the picture in pixels; the panel takes a second or third column rather than outgrow it.
        column: width of a column in pixels.

    Attributes:
        width: width the panel takes, in pixels.
        height: height the panel takes, in pixels: at least that of the picture.
    """

    def __init__(self, scene: Scene, height: float, column: float = 270.0) -> None:
        self._column = column
        entries = _entries(scene, column)
        for columns in (1, 2, 3):
            self.width = columns * (column + _PAD) + _PAD
            self._title = wrap(scene.prompt, self.width - 2 * _PAD, _TITLE, 4)
            self._canvas = f"{scene.width} x {scene.height} px, {_count(len(scene.instances))}"
            self._top = _PAD + len(self._title) * _TITLE * LINE_HEIGHT + 2 * _SMALL * LINE_HEIGHT
            total = sum(entry.height for entry in entries)
            if self._top + total / columns <= height - 2 * _PAD or columns == 3:
                break
        limit = max(height - self._top - _PAD, total / columns + 12)
        self._columns = _split(entries, limit, columns)
        content = self._top + max((sum(e.height for e in c) for c in self._columns), default=0.0) + _PAD
        self.height = max(height, content)

    def draw(self, painter: Painter, x: float, y: float) -> None:
        """Draw the panel with its upper left corner at (x, y)."""
        painter.rectangle((x, y, x + self.width, y + self.height), fill=PAPER)
        line = y + _PAD
        for text in self._title:
            painter.text((x + _PAD, line), text, size=_TITLE, fill=INK)
            line += _TITLE * LINE_HEIGHT
        painter.text((x + _PAD, line + 2), self._canvas, size=_SMALL, fill=FAINT)
        for number, column in enumerate(self._columns):
            left, line = x + _PAD + number * (self._column + _PAD), y + self._top
            for entry in column:
                _draw_entry(painter, entry, left, line, self._column)
                line += entry.height


def _entries(scene: Scene, column: float) -> list[_Entry]:
    stated = [pair for pair in enumerate(scene.instances) if pair[1].z_order is not None]
    unstated = [pair for pair in enumerate(scene.instances) if pair[1].z_order is None]
    stated.sort(key=lambda pair: -(pair[1].z_order or 0))
    groups = [("z order, nearest first", stated), ("no z order stated", unstated)]
    entries = []
    for title, group in groups:
        if group and stated:
            entries.append(_Entry(None, [title], ""))
        entries += [_entry(index, instance, column) for index, instance in group]
    shown = entries[:MAX_ENTRIES]
    if len(shown) < len(entries):
        shown.append(_Entry(None, [f"and {len(entries) - len(shown)} more"], ""))
    return shown


def _entry(index: int, instance: Instance, column: float) -> _Entry:
    lines = wrap(instance.caption, column - 34, _BODY, 3)
    note = ", ".join((*instance.kinds, *(location.kind for location in instance.others)))
    if instance.z_order is not None:
        note = f"z {instance.z_order}   {note}"
    return _Entry(index, lines, note)


def _split(entries: list[_Entry], limit: float, columns: int) -> list[list[_Entry]]:
    """Fill columns one after the other up to a height; the last takes the rest."""
    filled: list[list[_Entry]] = [[]]
    height = 0.0
    for entry in entries:
        if height + entry.height > limit and len(filled) < columns and filled[-1]:
            filled.append([])
            height = 0.0
        filled[-1].append(entry)
        height += entry.height
    return filled


def _draw_entry(painter: Painter, entry: _Entry, x: float, y: float, width: float) -> None:
    if entry.index is None:
        painter.text((x, y + 4), entry.lines[0], size=_SMALL, fill=FAINT)
        under = y + _SMALL * LINE_HEIGHT + 6
        painter.line([(x, under), (x + width, under)], stroke=RULE, width=1)
        return
    colour, number = instance_colour(entry.index), str(entry.index + 1)
    painter.rectangle((x, y, x + 26, y + 17), fill=colour, radius=4)
    middle = x + 13 - text_width(number, 12.0) / 2
    painter.text((middle, y + 1.5), number, size=12.0, fill=text_colour(colour))
    for text in entry.lines:
        painter.text((x + 34, y), text, size=_BODY, fill=INK)
        y += _BODY * LINE_HEIGHT
    painter.text((x + 34, y), entry.note, size=_SMALL, fill=FAINT)


def _count(number: int) -> str:
    return "1 instance" if number == 1 else f"{number} instances"
