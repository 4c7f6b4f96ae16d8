"""Reports: all scores of a model, as data that survives a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from instancediffusion.errors import InstanceDiffusionError
from instancediffusion.runs import write_json

from .estimates import Estimate
from .metrics import Scores

VERSION = 1
Breakdown = dict[str, dict[str, Scores]]


class ReportError(InstanceDiffusionError):
    """A file that is not a report of ours."""


@dataclass(frozen=True)
class ScoreTable:
    """The scores of one set of pictures.

    Attributes:
        pictures: how many.
        scores: metric -> estimate, over all instances.
        by: "instances", "size", "hidden" -> class -> scores.
        distance: Frechet distance to the reference composites; None if it was not measured.
    """

    pictures: int
    scores: Scores
    by: Breakdown = field(default_factory=dict)
    distance: float | None = None


@dataclass(frozen=True)
class GroupReport:
    """What was given one way, such as boxes only.

    Attributes:
        name: one of `layouts.GROUPS`, or a name of one's own.
        generated: scores of the pictures.
        composites: scores the world's own pictures of the same layouts get from the same judge: the judge's accuracy,
            and the best a model can reach. None where there are none.
        others: scores the world's own pictures of other layouts get: the scores that a judge without the scene gives to
            pictures of something else. None where there are none, or the judge is given what was asked for.
    """

    name: str
    generated: ScoreTable
    composites: ScoreTable | None = None
    others: ScoreTable | None = None


@dataclass(frozen=True)
class EvaluationReport:
    """All groups, and what they depend on.

    Attributes:
        groups: by what was given.
        facts: model, weights, settings, layouts; JSON-like values.
        judge: the evaluator: name of its file, hash, training, own accuracy; JSON-like values.
    """

    groups: tuple[GroupReport, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    judge: Mapping[str, Any] = field(default_factory=dict)

    def group(self, name: str) -> GroupReport:
        """Return a group by its name; KeyError if there is none."""
        return {group.name: group for group in self.groups}[name]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-like values."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EvaluationReport:
        """Read what `to_dict` returned.

        Raises:
            ReportError: it is something else.
        """
        try:
            if values["version"] != VERSION:
                raise ReportError(f"a report of format {values['version']}, expected {VERSION}; make it again")
            groups = tuple(
                GroupReport(
                    item["name"],
                    _table(item["generated"]),
                    _table(item["composites"]) if item["composites"] is not None else None,
                    _table(item["others"]) if item.get("others") is not None else None,
                )
                for item in values["groups"]
            )
            return cls(groups, dict(values["facts"]), dict(values["judge"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ReportError(f"not an evaluation report: {type(error).__name__} {error}") from error

    def save(self, path: str | Path) -> None:
        """Write the report as JSON, whole or not at all."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> EvaluationReport:
        """Read a saved report.

        Raises:
            ReportError: the file holds something else.
            OSError: it cannot be opened.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ReportError(f"{path}: no JSON ({error})") from error
        return cls.from_dict(values)


def _table(values: Mapping[str, Any]) -> ScoreTable:
    by = {way: {key: _scores(v) for key, v in classes.items()} for way, classes in values["by"].items()}
    return ScoreTable(int(values["pictures"]), _scores(values["scores"]), by, values["distance"])


def _scores(values: Mapping[str, Any]) -> Scores:
    return {name: Estimate(**item) for name, item in values.items()}
