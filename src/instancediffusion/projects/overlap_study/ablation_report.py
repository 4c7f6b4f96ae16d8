"""The ablation's report: a table for each kind of location given, one row for each part."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from instancediffusion.evaluation.estimates import Estimate
from instancediffusion.evaluation.orders import Row
from instancediffusion.runs import write_atomic, write_json

from .ablation import COMPOSITES, OTHERS, ROWS, AblationRun
from .study_metrics import ALL
from .study_report import Entry, StudyReport, report_of

SHOWN = ("class", "colour", "box_iou", "mask_iou", "pair_right", "right", "prior", "blend", "missed")
TITLES = {COMPOSITES: "the world's own pictures", OTHERS: "the world's own pictures of other layouts"}

Progress = Callable[[str, int], Callable[[int], None]]


def write_ablation(
    run: AblationRun, left: Mapping[str, str], facts: Mapping[str, Any], progress: Progress
) -> Iterator[Path]:
    """Measure what is there and write it; yields ablation.json, ablation.md and rows.jsonl.

    Args:
        run: the pictures.
        left: rows that are not measured, and why.
        facts: what the report says of where the pictures come from.
        progress: makes a counter of some work.
    """
    rows: dict[str, list[Row]] = {COMPOSITES: [], OTHERS: []}
    for which, row in run.composites(progress("composites measured", len(run.cells))):
        rows[which].append(row)
    for name in run.rows:
        rows[name] = list(run.measured(name, progress(f"{name}: measured", len(run.cells))))
    settings = {name: {"off": list(row.off), **row.values, "order_told": row.order} for name, row in run.rows.items()}
    report = report_of(rows, {**facts, "rows": settings, "not_measured": dict(left), "missing": len(run.missing())})
    write_json(run.path / "ablation.json", report.to_dict())
    write_atomic(run.path / "ablation.md", to_markdown(report))
    write_atomic(run.path / "rows.jsonl", "".join(json.dumps(row) + "\n" for some in rows.values() for row in some))
    yield from (run.path / name for name in ("ablation.json", "ablation.md", "rows.jsonl"))


def to_markdown(report: StudyReport) -> str:
    """Write the tables, and below them the rows that were not evaluated."""
    lines = [f"# Ablation: {report.facts.get('model', '')}", ""]
    given = dict.fromkeys(e.group for e in report.entries if e.group.startswith("told ") and "," not in e.group)
    for group in given:
        lines += [f"## {group[0].upper()}{group[1:]}", ""]
        lines += [*_table([entry for entry in report.entries if entry.group == group]), ""]
    left = report.facts.get("not_measured", {})
    if left:
        lines += ["Not measured:", "", *(f"- {ROWS[name].title}: {why}" for name, why in left.items()), ""]
    lines += [
        "Class, colour and IoU are of all objects: a missed one has none of them. Pairs: both orders of a layout come "
        "out as asked; .25 is chance where the order is not in the request. 95 % intervals in brackets.",
        "",
    ]
    return "\n".join(lines)


def _table(entries: list[Entry]) -> Iterator[str]:
    yield "| | pictures | " + " | ".join(ALL[name].title for name in SHOWN) + " | s |"
    yield "|" + "---|" * (len(SHOWN) + 3)
    for entry in entries:
        title = TITLES.get(entry.settings) or ROWS[entry.settings].title
        values = " | ".join(_value(entry.measures.get(name)) for name in SHOWN)
        yield f"| {title} | {entry.pictures} | {values} | {'' if entry.seconds is None else f'{entry.seconds:.2f}'} |"


def _value(value: Estimate | None) -> str:
    return "" if value is None else f"{value.value:.2f} ({value.low:.2f} to {value.high:.2f})"
