"""Plots of a study as SVG text: a metric over the values of a factor, one line for each of the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape

from instancediffusion.evaluation.estimates import Estimate

from .study_metrics import ALL
from .study_report import Entry

WIDTH, HEIGHT = 560, 280
LEFT, TOP, BOTTOM, LEGEND = 44, 28, 40, 200
COLOURS = ("#57606a", "#0969da", "#bc4c00", "#1a7f37", "#8250df", "#bf3989", "#9a6700", "#0b7285", "#cf222e", "#3b2300")


@dataclass(frozen=True)
class Plot:
    """What is drawn of a section.

    Attributes:
        factor: its values, in order, are the horizontal axis.
        measure: the vertical axis.
    """

    factor: str
    measure: str


def values_of(entries: Sequence[Entry], plot: Plot) -> tuple[list[str], dict[str, list[Estimate | None]]]:
    """Collect the values of a factor, and by settings the metric at each of them."""
    start = f"{plot.factor} "
    members = [e for e in entries if e.group.startswith(start) and ", " not in e.group and plot.measure in e.measures]
    values = sorted({e.group.removeprefix(start) for e in members})
    found = {(e.settings, e.group.removeprefix(start)): e.measures[plot.measure] for e in members}
    names = dict.fromkeys(e.settings for e in members)
    return values, {name: [found.get((name, value)) for value in values] for name in names}


def to_svg(entries: Sequence[Entry], plot: Plot, names: Mapping[str, str]) -> str:
    """Draw a plot, with the 95 % intervals as whiskers; "" if fewer than two values of the factor are there.

    Args:
        entries: of one section.
        plot: what to draw.
        names: settings -> their titles.
    """
    values, series = values_of(entries, plot)
    if len(values) < 2:
        return ""
    found = [one for line in series.values() for one in line if one is not None]
    low, high = min(0.0, *(one.low for one in found)), max(one.high for one in found)
    high = 1.0 if 0.5 < high <= 1 else high or 1.0
    right = WIDTH - LEGEND
    step = (right - LEFT) / len(values)

    def across(line: int, number: int) -> float:
        # Beside one another, so that whiskers do not hide each other.
        return LEFT + (number + 0.5) * step + (line - (len(series) - 1) / 2) * min(6.0, 0.7 * step / len(series))

    def up(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / (high - low))

    title = f"{ALL[plot.measure].title} by {plot.factor}"
    parts = [f'<text x="{LEFT}" y="16" font-size="13" font-weight="600">{escape(title)}</text>']
    for fraction in (0, 0.25, 0.5, 0.75, 1):
        level = low + fraction * (high - low)
        parts.append(
            f'<line x1="{LEFT}" x2="{right}" y1="{up(level):.1f}" y2="{up(level):.1f}" stroke="#d0d7de"/>'
            f'<text x="{LEFT - 5}" y="{up(level) + 4:.1f}" font-size="11" text-anchor="end">{level:.2f}</text>'
        )
    for number, value in enumerate(values):
        x = LEFT + (number + 0.5) * step
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 20}" font-size="11" text-anchor="middle">{escape(value)}</text>')
    for line, (name, points) in enumerate(series.items()):
        parts.append(_line(points, COLOURS[line % len(COLOURS)], partial(across, line), up))
        y = TOP + 8 + 18 * line
        parts.append(
            f'<circle cx="{right + 14}" cy="{y - 4}" r="4" fill="{COLOURS[line % len(COLOURS)]}"/>'
            f'<text x="{right + 24}" y="{y}" font-size="11">{escape(_short(names.get(name, name)))}</text>'
        )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="{escape(title)}" font-family="system-ui, sans-serif">{"".join(parts)}</svg>'
    )


def _line(
    points: Sequence[Estimate | None], colour: str, across: Callable[[int], float], up: Callable[[float], float]
) -> str:
    there = [(across(n), one) for n, one in enumerate(points) if one is not None]
    joined = " ".join(f"{x:.1f},{up(one.value):.1f}" for x, one in there)
    marks = "".join(
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{up(one.low):.1f}" y2="{up(one.high):.1f}" stroke="{colour}"/>'
        f'<circle cx="{x:.1f}" cy="{up(one.value):.1f}" r="3" fill="{colour}"/>'
        for x, one in there
    )
    return f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="1.5"/>{marks}'


def _short(title: str) -> str:
    return title if len(title) <= 30 else title[:29] + "…"
