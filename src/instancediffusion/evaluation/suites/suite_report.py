"""The report of suites: `EvaluationReport` as data, Markdown and one HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from PIL import Image

from instancediffusion.rendering.page import figure, page

from ..estimates import Estimate
from ..markdown import NONE, facts_list, table
from ..report import EvaluationReport, GroupReport, ScoreTable
from .suite import Measure, Suite


@dataclass(frozen=True)
class Failure:
    """A picture that has no score.

    Attributes:
        path: of the picture.
        reason: why.
    """

    path: str
    reason: str


@dataclass
class SuiteResult:
    """Results of one suite.

    Attributes:
        suite: the suite.
        made: the scores of the pictures.
        real: those of real pictures of the same scenes by the same evaluator, or None.
        facts: models, files, counts; JSON-like.
        failures: pictures that have no score.
        shown: pictures for the page, with captions.
    """

    suite: Suite
    made: ScoreTable
    real: ScoreTable | None
    facts: Mapping[str, Any]
    failures: Sequence[Failure] = ()
    shown: Sequence[tuple[Image.Image, str]] = field(default_factory=tuple)


def to_report(results: Sequence[SuiteResult], facts: Mapping[str, Any]) -> EvaluationReport:
    """Return the numbers as data: a group for each suite, real pictures as its `composites`."""
    groups = tuple(GroupReport(one.suite.name, one.made, one.real) for one in results)
    suites = {one.suite.name: {**one.facts, **_record(one)} for one in results}
    judges = {one.suite.name: one.facts.get("models", {}) for one in results}
    return EvaluationReport(groups, {**facts, "suites": suites}, judges)


def to_markdown(results: Sequence[SuiteResult], facts: Mapping[str, Any]) -> str:
    """Write the report as Markdown."""
    parts = ["# Bench", facts_list(facts)]
    for one in results:
        parts += [f"## {one.suite.title}", facts_list(one.facts), _scores(one)]
        if by := _breakdown(one):
            parts.append(by)
        parts.append(_definitions(one.suite, one.made))
        if one.failures:
            lines = [f"- {failure.path}: {failure.reason}" for failure in one.failures]
            parts.append(f"Without a score ({len(lines)}):\n\n" + "\n".join(lines))
    return "\n\n".join(part for part in parts if part) + "\n"


def to_html(results: Sequence[SuiteResult], facts: Mapping[str, Any]) -> str:
    """Write the report as one page that needs nothing beside itself."""
    body = ["<h1>Bench</h1>", _facts_html(facts)]
    for one in results:
        body += [f"<h2>{escape(one.suite.title)}</h2>", _facts_html(one.facts), _scores_html(one)]
        body += [_html_table(head, rows) for head, rows in _breakdown_rows(one)]
        body += ["<div>", *(figure(image, text) for image, text in one.shown), "</div>"]
        if one.failures:
            items = "".join(f"<li>{escape(f'{item.path}: {item.reason}')}</li>" for item in one.failures)
            body.append(f"<details><summary>Without a score ({len(one.failures)})</summary><ul>{items}</ul></details>")
    return page("Bench", "".join(body))


def _record(one: SuiteResult) -> dict[str, Any]:
    return {
        "definitions": {name: measure.definition for name, measure in _used(one.suite, one.made)},
        "failures": [{"picture": failure.path, "reason": failure.reason} for failure in one.failures],
    }


def _used(suite: Suite, scores: ScoreTable) -> list[tuple[str, Measure]]:
    return [(name, measure) for name, measure in suite.measures.items() if name in scores.scores]


def _rows(one: SuiteResult) -> tuple[list[str], list[list[str]]]:
    names = [name for name, _ in _used(one.suite, one.made)]
    figures = [item for item in one.suite.published if set(names) & set(item.values)]
    head = ["score", "pictures", *(["real pictures"] if one.real else []), "observations"]
    head += [f"{item.model}, {item.source}" for item in figures]
    rows = []
    for name, measure in _used(one.suite, one.made):
        own = one.made.scores[name]
        real = [_whole(one.real.scores.get(name))] if one.real else []
        others = [f"{item.values[name]:.3f}" if name in item.values else NONE for item in figures]
        rows.append([measure.title, _whole(own), *real, str(own.count), *others])
    return head, rows


def _scores(one: SuiteResult) -> str:
    return table(*_rows(one))


def _breakdown_rows(one: SuiteResult) -> Iterable[tuple[list[str], list[list[str]]]]:
    for way, classes in one.made.by.items():
        names = [name for name in one.suite.measures if any(name in scores for scores in classes.values())]
        rows = [[key, *(_whole(scores.get(name)) for name in names)] for key, scores in classes.items()]
        yield [way, *(one.suite.measures[name].title for name in names)], rows


def _breakdown(one: SuiteResult) -> str:
    return "\n\n".join(table(head, rows) for head, rows in _breakdown_rows(one))


def _definitions(suite: Suite, scores: ScoreTable) -> str:
    return "\n".join(f"- *{measure.title}*: {measure.definition}" for _, measure in _used(suite, scores))


def _whole(estimate: Estimate | None) -> str:
    return NONE if estimate is None else str(estimate)


def _facts_html(facts: Mapping[str, Any]) -> str:
    rows = "".join(f"<tr><th>{escape(str(k))}</th><td>{escape(str(v))}</td></tr>" for k, v in facts.items())
    return f"<details><summary>Facts</summary><table>{rows}</table></details>"


def _scores_html(one: SuiteResult) -> str:
    head, rows = _rows(one)
    definitions = "".join(
        f"<tr><th>{escape(measure.title)}</th><td>{escape(measure.definition)}</td></tr>"
        for _, measure in _used(one.suite, one.made)
    )
    measured = f"<details><summary>What is measured</summary><table>{definitions}</table></details>"
    return _html_table(head, rows) + measured


def _html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join(
        f"<tr><th>{escape(row[0])}</th>"
        + "".join(f'<td class="number">{escape(cell)}</td>' for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{top}</tr>{lines}</table>"
