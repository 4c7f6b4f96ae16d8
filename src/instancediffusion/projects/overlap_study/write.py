"""The files of a study: its design, the metrics of each picture, and the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from instancediffusion.evaluation.orders import Row
from instancediffusion.runs import write_atomic, write_json

from .cells import Cell
from .pages import to_html
from .study_report import COMPOSITES, report_of, to_markdown
from .study_run import StudyRun

Progress = Callable[[str, int], Callable[[int], None]]


def write_design(run: StudyRun) -> Path:
    """Write the design of the study, a JSON line for each condition."""
    path = run.path / "design.jsonl"
    write_atomic(path, "".join(json.dumps(_record(cell)) + "\n" for cell in run.cells))
    return path


def write_report(run: StudyRun, facts: Mapping[str, Any], progress: Progress) -> Iterator[Path]:
    """Evaluate what is there and write the report; yields the files."""
    composites = sum(cell.truth.composite is not None for cell in run.cells)
    rows: dict[str, list[Row]] = {COMPOSITES: []}
    if composites:
        rows[COMPOSITES] = list(run.composite_rows(progress("composites measured", composites)))
    for name in run.compared:
        rows[name] = list(run.rows(name, progress(f"{name}: measured", len(run.cells))))
    report = report_of(rows, {**facts, "missing": len(run.missing()), "settings": _settings(run)})
    lines = "".join(json.dumps(row) + "\n" for some in rows.values() for row in some)
    names = {COMPOSITES: "the world's own pictures"} | {name: row.title for name, (row, _) in run.compared.items()}

    def picture(name: str, cell: Cell) -> Image.Image | None:
        path = run.picture_path(name, cell)
        return Image.open(path) if path.exists() else None

    write_json(run.path / "report.json", report.to_dict())
    tests = dict.fromkeys(cell.section for cell in run.cells if cell.suite == "seed")
    pages = {f"{test}.html": to_html(report, run.cells, names, picture, only=test) for test in tests}
    texts = {"rows.jsonl": lines, **pages, "report.html": to_html(report, run.cells, names, picture)}
    texts["report.md"] = to_markdown(report, names)
    for file, text in texts.items():
        write_atomic(run.path / file, text)
    yield from (run.path / file for file in ("report.json", *texts))


def _settings(run: StudyRun) -> dict[str, Any]:
    return {name: {**row.values, "order_told": row.order} for name, (row, _) in run.compared.items()}


def _record(cell: Cell) -> dict[str, Any]:
    return {
        "key": cell.key,
        "section": cell.section,
        "factors": dict(cell.factors),
        "seed": cell.seed,
        "front": cell.front,
        "twins": cell.twins,
        "scene": cell.scene.to_dict(),
    }
