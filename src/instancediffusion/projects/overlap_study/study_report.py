"""The results of a study: a table for each section and each kind of location, one row for each of the settings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from instancediffusion.evaluation.estimates import Estimate
from instancediffusion.evaluation.orders import Row

from .study_metrics import ALL, spread, summary

COMPOSITES = "composites"

SCATTERED = ("test0", "original0")
"""Sections that ask how far an object's location scatters over the seeds of one scene."""


@dataclass(frozen=True)
class Entry:
    """The metrics of one group of pictures.

    Attributes:
        section: such as "flip" or "test2".
        group: the values of the factors it is broken down by, "" for all pictures of the section.
        settings: the name of those they were sampled with, or `COMPOSITES`.
        pictures: how many.
        seconds: mean time of a picture; None for composites.
        measures: by name.
    """

    section: str
    group: str
    settings: str
    pictures: int
    seconds: float | None
    measures: Mapping[str, Estimate]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-like values."""
        return asdict(self)


@dataclass(frozen=True)
class StudyReport:
    """All results of a study.

    Attributes:
        entries: the tables.
        facts: model, weights, settings and design.
    """

    entries: tuple[Entry, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-like values, with the definition of each metric."""
        named = {name for entry in self.entries for name in entry.measures}
        return {
            "facts": dict(self.facts),
            "definitions": {name: asdict(ALL[name]) for name in ALL if name in named},
            "entries": [entry.to_dict() for entry in self.entries],
        }


def report_of(rows: Mapping[str, Sequence[Row]], facts: Mapping[str, Any]) -> StudyReport:
    """Put the tables together.

    Args:
        rows: by settings.
        facts: what the report says of where they come from.
    """
    return StudyReport(tuple(_entries(rows)), facts)


def _entries(rows: Mapping[str, Sequence[Row]]) -> Iterator[Entry]:
    sections = dict.fromkeys(row["section"] for some in rows.values() for row in some)
    for section in sections:
        chosen = {name: [row for row in some if row["section"] == section] for name, some in rows.items()}
        for group in dict.fromkeys(g for some in chosen.values() for row in some for g in _groups(row)):
            for name, some in chosen.items():
                members = [row for row in some if group in _groups(row)]
                if members:
                    yield _entry(section, group, name, members)


def _groups(row: Row) -> list[str]:
    """Name the groups of a picture: all, each factor, and the kind of location crossed with each other factor."""
    factors = row["factors"]
    kind = factors.get("told")
    single = [f"{name} {value}" for name, value in factors.items()]
    crossed = [f"told {kind}, {name} {value}" for name, value in factors.items() if kind and name != "told"]
    return ["", *single, *crossed]


def _entry(section: str, group: str, name: str, members: Sequence[Row]) -> Entry:
    times = [row["seconds"] for row in members if not math.isnan(row.get("seconds", math.nan))]
    measures = summary(members)
    scenes = {row["cell"].rsplit("/", 1)[0] for row in members}
    if section in SCATTERED and len(scenes) == 1:
        measures |= spread(members)
    return Entry(section, group, name, len(members), sum(times) / len(times) if times else None, measures)


def to_markdown(report: StudyReport, names: Mapping[str, str]) -> str:
    """Write the metrics that are not broken down further than by class and by the kind of location given.

    Args:
        report: the numbers.
        names: settings -> their titles.
    """
    lines = [f"# Overlap study: {report.facts.get('model', '')}", ""]
    for section in dict.fromkeys(entry.section for entry in report.entries):
        entries = [entry for entry in report.entries if entry.section == section]
        for group in dict.fromkeys(entry.group for entry in entries if _shown(entry.group)):
            lines += _table(
                f"{section}, {group}" if group else section, [e for e in entries if e.group == group], names
            )
    return "\n".join(lines) + "\n"


def _shown(group: str) -> bool:
    return all(part.startswith(("told ", "classes ")) for part in group.split(", ") if part)


def _table(title: str, entries: Sequence[Entry], names: Mapping[str, str]) -> Iterator[str]:
    measures = [name for name in ALL if any(name in entry.measures for entry in entries)]
    yield from (f"## {title}", "")
    yield "| | pictures | s | " + " | ".join(ALL[name].title for name in measures) + " |"
    yield "|" + "---|" * (3 + len(measures))
    for entry in entries:
        seconds = "" if entry.seconds is None else f"{entry.seconds:.1f}"
        values = " | ".join(_value(entry.measures.get(name)) for name in measures)
        yield f"| {names.get(entry.settings, entry.settings)} | {entry.pictures} | {seconds} | {values} |"
    yield ""


def _value(value: Estimate | None) -> str:
    return "" if value is None else f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"
