"""The report as Markdown tables: one for each section, and one for each way its layouts were told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from instancediffusion.evaluation.estimates import Estimate

from .measures import ALL
from .report import Entry, StudyReport


def to_markdown(report: StudyReport, names: Mapping[str, str]) -> str:
    """Write the numbers that are not broken down further than by class and by what was told.

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
