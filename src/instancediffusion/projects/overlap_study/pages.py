"""The report as one HTML file that needs nothing beside itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

from PIL import Image

from instancediffusion.evaluation.estimates import Estimate
from instancediffusion.rendering import render_overlay
from instancediffusion.rendering.page import figure, page

from .cells import Cell
from .plots import Plot, to_svg
from .study_metrics import ALL, Measure
from .study_report import COMPOSITES, Entry, StudyReport

SECTIONS: Mapping[str, tuple[str, str]] = {
    "test0": (
        "Test 0: how much does each kind of location bind?",
        "One dog, given by box, point, stroke or mask; the spread of its location and size over the seeds.",
    ),
    "test1": ("Test 1: do close instances blend?", "Three balloons, given by points, from far apart to touching."),
    "test2": (
        "Test 2: who is in front, apple or pear?",
        "Half overlapping; the order not stated, stated as layers, or in the words of the prompt alone; sides swapped.",
    ),
    "test3": (
        "Test 3: does an order hold against perspective?",
        "A vase and a flower that stands lower, so that perspective puts the flower in front.",
    ),
    "test4": (
        "Test 4: does a stroke decide the order?",
        "Polar bear and iceberg; the bear's stroke outside or inside "
        "the overlap, with and without boxes, with and without a stated order.",
    ),
    "test5": (
        "Test 5: do part boxes give a direction?",
        "A donkey given by its box, by words, and by boxes of its parts as further donkeys.",
    ),
    "original0": (
        "Test 0, the original scenes: how much does each kind of location bind?",
        "A dog with its mouth, paws and ears, given by boxes, points, strokes or masks; location and size of the dog.",
    ),
    "original1": ("Test 1, the original scenes: do close instances blend?", "A panda and three balloons, by points."),
    "original2": (
        "Test 2, the original scenes: who is in front, apple or pear?",
        "Half overlapping; as in the files, some of which put the apple in front by words; with layers, both orders.",
    ),
    "original3": (
        "Test 3, the original scene: is the flower in front of the vase?",
        "The file asks for it in words; with layers, for it and for the opposite.",
    ),
    "original4": (
        "Test 4, the original scenes: does a stroke decide the order?",
        "Iceberg and igloo; the files put one of them behind by strokes; with layers, in both orders.",
    ),
    "original5": (
        "Test 5, the original scenes: do part boxes give a direction?",
        "A donkey with boxes of its head, mouth and ears on one side.",
    ),
    "grid": ("Grid", "Overlap, classes, number of objects and ratio of sizes crossed, in both orders."),
    "flip": ("Flip", "Random layouts in both orders, all else equal."),
}
"""Section -> its title, and what is asked."""

PLOTS: Mapping[str, tuple[Plot, ...]] = {
    "test0": (Plot("told", "place_spread"), Plot("told", "size_spread")),
    "test1": (Plot("distance", "clean"), Plot("distance", "merged")),
    "test2": (Plot("order", "first_front"), Plot("order", "right"), Plot("apple", "first_front")),
    "test3": (Plot("order", "right"), Plot("order", "first_front")),
    "test4": (Plot("told", "right"), Plot("stroke", "first_front"), Plot("stroke", "stroke")),
    "test5": (Plot("told", "facing"), Plot("told", "doubled")),
    "grid": (Plot("overlap", "right"), Plot("objects", "right"), Plot("overlap", "blend")),
    "flip": (Plot("told", "pair_right"), Plot("overlap", "pair_right"), Plot("overlap", "blend")),
}
"""Section -> the plots that answer its question."""

SHOWN = 6


def to_html(
    report: StudyReport,
    cells: Sequence[Cell],
    names: Mapping[str, str],
    picture: Callable[[str, Cell], Image.Image | None],
    only: str | None = None,
) -> str:
    """Write the page.

    Args:
        report: the numbers.
        cells: the conditions of the design; the first ones of each section are shown.
        names: by settings, their titles.
        picture: finds the picture of a condition with some settings; None if there is none.
        only: the section to write; None writes all.
    """
    sections = dict.fromkeys(entry.section for entry in report.entries if only in (None, entry.section))
    body = [
        f"<h1>Overlap study: {escape(str(report.facts.get('model', '')))}</h1>",
        _facts(report),
        _definitions(report),
        *(_section(name, report, cells, names, picture) for name in sections),
    ]
    return page("Overlap study", "".join(body))


def _facts(report: StudyReport) -> str:
    rows = "".join(f"<tr><th>{escape(k)}</th><td>{escape(str(v))}</td></tr>" for k, v in report.facts.items())
    return f"<details><summary>Model, settings, design</summary><table>{rows}</table></details>"


def _definitions(report: StudyReport) -> str:
    named = [name for name in ALL if any(name in entry.measures for entry in report.entries)]
    rows = "".join(
        f"<tr><th>{escape(ALL[name].title)}</th><td>{escape(ALL[name].definition)}</td></tr>" for name in named
    )
    return f"<details open><summary>What is measured</summary><table>{rows}</table></details>"


def _section(
    name: str,
    report: StudyReport,
    cells: Sequence[Cell],
    names: Mapping[str, str],
    picture: Callable[[str, Cell], Image.Image | None],
) -> str:
    title, question = SECTIONS.get(name, (name, ""))
    entries = [entry for entry in report.entries if entry.section == name]
    groups = dict.fromkeys(entry.group for entry in entries)
    tables = [_table(group, [e for e in entries if e.group == group], names) for group in groups]
    plots = "".join(to_svg(entries, plot, names) for plot in PLOTS.get(name, ()))
    shown = _figures([cell for cell in cells if cell.section == name], names, picture)
    return (
        f"<h2>{escape(title)}</h2><p>{escape(question)}</p>{plots}{tables[0]}{shown}"
        f"<details><summary>Broken down</summary>{''.join(tables[1:])}</details>"
    )


def _table(group: str, entries: Sequence[Entry], names: Mapping[str, str]) -> str:
    measures = [name for name in ALL if any(name in entry.measures for entry in entries)]
    head = "".join(f"<th>{escape(ALL[name].title)}</th>" for name in measures)
    lines = []
    for entry in entries:
        values = "".join(_cell(entry.measures.get(name), ALL[name]) for name in measures)
        seconds = "" if entry.seconds is None else f"{entry.seconds:.1f}"
        title = escape(names.get(entry.settings, entry.settings))
        lines.append(
            f'<tr><th>{title}</th><td class="number">{entry.pictures}</td>'
            f'<td class="number">{seconds}</td>{values}</tr>'
        )
    caption = f"<h4>{escape(group)}</h4>" if group else ""
    return f"{caption}<table><tr><th></th><th>pictures</th><th>s</th>{head}</tr>{''.join(lines)}</table>"


def _cell(value: Estimate | None, measure: Measure) -> str:
    if value is None:
        return "<td></td>"
    bar = (
        ""
        if measure.upwards is None
        else f'<div class="bar" style="width:{60 * min(max(value.value, 0), 1):.0f}px"></div>'
    )
    interval = f'<div class="interval">{value.low:.3f} to {value.high:.3f}</div>'
    return f'<td class="number">{value.value:.3f}{bar}{interval}</td>'


def _figures(
    cells: Sequence[Cell], names: Mapping[str, str], picture: Callable[[str, Cell], Image.Image | None]
) -> str:
    """Show the conditions that differ most in their factors: the scene, the composite, and each setting's picture."""
    chosen: dict[tuple[str, ...], Cell] = {}
    for cell in cells:
        chosen.setdefault((*cell.factors.values(), str(cell.front)), cell)
    step = max(1, len(chosen) // SHOWN)
    lines = []
    for cell in list(chosen.values())[::step][:SHOWN]:
        stated = ", ".join(f"{key} {value}" for key, value in cell.factors.items())
        asked = "" if cell.front is None or cell.pair is None else f"; in front: {_name(cell, cell.pair[cell.front])}"
        panels = [figure(render_overlay(cell.scene), f"{stated}{asked}")]
        if cell.truth.composite is not None:
            panels.append(figure(Image.fromarray(cell.truth.composite), COMPOSITES))
        for name, title in names.items():
            image = picture(name, cell) if name != COMPOSITES else None
            if image is not None:
                panels.append(figure(image, title))
        lines.append(f"<div>{''.join(panels)}</div>")
    return "".join(lines)


def _name(cell: Cell, index: int) -> str:
    return cell.truth.instances[index].name or cell.scene.instances[index].caption
