"""A report as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .estimates import Estimate
from .metrics import EXTRA, MEASURES
from .report import EvaluationReport, GroupReport, ScoreTable

TITLES = {**{name: measure.title for name, measure in MEASURES.items()}, EXTRA: "objects not asked for, a picture"}
WAYS = {"instances": "objects in the picture", "size": "size", "hidden": "hidden by nearer objects"}
NONE = "–"


def to_markdown(report: EvaluationReport) -> str:
    """Write a report as Markdown: facts, a table for all groups, then each group with its breakdowns."""
    parts = ["# Evaluation", facts_list(report.facts), "## All groups", _overview(report.groups), _reading()]
    if report.judge:
        parts += ["## The judge", facts_list(report.judge)]
    for group in report.groups:
        parts += [f"## Told: {group.name}", *_group(group)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _overview(groups: Sequence[GroupReport]) -> str:
    """One row for each group: the pictures' scores, and in brackets those of the composites."""
    names = [name for name in TITLES if any(name in group.generated.scores for group in groups)]
    rows = []
    for group in groups:
        cells = [_beside(_value(group.generated, name), _value(group.composites, name)) for name in names]
        distances = [_distance(table) for table in (group.generated, group.composites)]
        rows.append([group.name, str(group.generated.pictures), *cells, _beside(*distances)])
    return table(["told", "pictures", *(TITLES[name] for name in names), "Frechet distance"], rows)


def _reading() -> str:
    return (
        "In brackets: what the same judge says of the world's own pictures of the same layouts, which is its accuracy "
        "and the most a model can reach. Below, intervals are of 95 %."
    )


def _group(group: GroupReport) -> list[str]:
    made, best, others = group.generated, group.composites, group.others
    rows = [
        [
            TITLES[name],
            _whole(made.scores[name]),
            _whole(best.scores.get(name)) if best else NONE,
            _whole(others.scores.get(name)) if others else NONE,
            _count(made, name),
        ]
        for name in TITLES
        if name in made.scores
    ]
    parts = [table(["score", "pictures", "composites", "composites of other layouts", "observations"], rows)]
    for way, classes in made.by.items():
        if len(classes) < 2:
            continue
        names = [name for name in TITLES if any(name in scores for scores in classes.values())]
        rows = []
        for key, scores in classes.items():
            other = best.by.get(way, {}).get(key, {}) if best else {}
            cells = [_beside(_short(scores.get(name)), _short(other.get(name))) for name in names]
            count = max((estimate.count for estimate in scores.values()), default=0)
            rows.append([key, str(count), *cells])
        parts.append(table([WAYS.get(way, way), "objects", *(TITLES[name] for name in names)], rows))
    return parts


def facts_list(facts: Mapping[str, Any]) -> str:
    """Write facts as a list."""
    return "\n".join(f"- {name}: {_inline(value)}" for name, value in facts.items())


def _inline(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_inline(item)}" for name, item in value.items() if item is not None)
    if isinstance(value, list | tuple):
        return ", ".join(_inline(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _value(table: ScoreTable | None, name: str) -> str:
    return _short(table.scores.get(name)) if table else NONE


def _short(estimate: Estimate | None) -> str:
    return NONE if estimate is None else f"{estimate.value:.3f}"


def _whole(estimate: Estimate | None) -> str:
    return NONE if estimate is None else str(estimate)


def _count(table: ScoreTable, name: str) -> str:
    return str(table.scores[name].count)


def _distance(table: ScoreTable | None) -> str:
    return NONE if table is None or table.distance is None else f"{table.distance:.3g}"


def _beside(own: str, best: str) -> str:
    return own if best == NONE else f"{own} ({best})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
