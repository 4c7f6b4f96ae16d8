"""What a suite is: what it needs, how it scores a picture, how it puts scores together; and the register of suites."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from instancediffusion.datasets import Example
from instancediffusion.errors import InstanceDiffusionError, SettingsError

from ..estimates import Estimate, estimate
from ..report import ScoreTable

if TYPE_CHECKING:
    from .models import Models

Row = dict[str, Any]
"""What is kept of a scored picture: JSON-like."""


class NotScoredError(InstanceDiffusionError):
    """A picture that a suite has no number for; the message says why."""


@dataclass(frozen=True)
class Measure:
    """One metric of a suite.

    Attributes:
        title: for the report.
        definition: in a sentence.
        upwards: whether more is better.
        published: whether it is computed as the published code does, with its faults.
    """

    title: str
    definition: str
    upwards: bool = True
    published: bool = False


@dataclass(frozen=True)
class Case:
    """One scene that pictures are made of.

    Attributes:
        example: the scene, and the categories of its instances.
        name: of its pictures, without a suffix.
        group: a class of cases that is reported by itself; empty for none.
        seed: of the start noise of a picture that is made of it; None takes the number of the case.
        real: what a real picture of it may be called beside `name`; empty for nothing else.
    """

    example: Example
    name: str
    group: str = ""
    seed: int | None = None
    real: str = ""


@dataclass(frozen=True)
class Scored:
    """One scored picture.

    Attributes:
        case: number of its case; several pictures of one case are not independent.
        path: of the picture.
        row: what the suite keeps of it.
        group: that of the case.
    """

    case: int
    path: str
    row: Row
    group: str = ""


@dataclass(frozen=True)
class Published:
    """A figure of the literature to compare with.

    Attributes:
        model: what made the pictures.
        source: where it is printed, and by which evaluator.
        values: metric -> value.
    """

    model: str
    source: str
    values: Mapping[str, float]


class Suite(ABC):
    """A way to score pictures of scenes, from any source.

    Attributes:
        name: on the command line.
        title: in reports.
        needs: the models it uses: names of attributes of `Models`.
        defaults: role of a model -> the one the protocol names, where that is not the one of all suites.
        measures: what it computes, by name.
        published: figures to compare with.
        reads: what file of scenes it reads, for messages.
        reference: whether it cannot do without real pictures, which then need not be of the same scenes.
        whole: whether pictures belong together, so that each that is missing is reported by its name.
        same_seed: whether the requests that are made of one scene start from the same noise; see `requests`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    measures: ClassVar[Mapping[str, Measure]]
    defaults: ClassVar[Mapping[str, str]] = {}
    published: ClassVar[Sequence[Published]] = ()
    reads: ClassVar[str] = "labelled pictures of any format, or scene files"
    reference: ClassVar[bool] = False
    whole: ClassVar[bool] = False
    same_seed: bool = False

    def cases(self, path: Path | None) -> Sequence[Case] | None:  # noqa: ARG002
        """Read a file of this suite's own; None leaves it to the readers of data sets and scenes.

        Args:
            path: the file; None where none was named, for suites that bring their own.

        Raises:
            SceneError: the file is not this suite's.
        """
        return None

    def requests(self, cases: Sequence[Case]) -> Sequence[Case]:
        """Say what is asked for of the scenes that were read: each as it is, unless the suite asks otherwise.

        Raises:
            SettingsError: the suite has nothing to ask of such scenes.
        """
        return cases

    def picture_of(self, path: Path) -> str | None:  # noqa: ARG002
        """Return the name of the case whose picture a file is, "" if it is none.

        None leaves the names to `find_pictures`.
        """
        return None

    def prepare(self, cases: Sequence[Case], models: Models, path: Path | None) -> None:  # noqa: B027
        """See what all cases have in common before the first picture.

        Raises:
            SettingsError: the suite cannot score such cases, or not with these models.
        """

    @abstractmethod
    def score(self, case: Case, image: Image.Image, models: Models) -> Row:
        """Score one picture (RGB) of a case.

        Raises:
            NotScoredError: it has no number.
        """

    @abstractmethod
    def aggregate(self, scored: Sequence[Scored]) -> ScoreTable:
        """Put the scores of pictures together; intervals are of 95 %, and whole cases are resampled."""

    def compare(self, scored: Sequence[Scored], real: Sequence[Scored]) -> tuple[ScoreTable, ScoreTable | None]:
        """Put the scores of pictures together, and those of the real ones: the bound that is printed beside."""
        return self.aggregate(scored), self.aggregate(real) if real else None

    def badness(self, row: Row) -> float:  # noqa: ARG002
        """Say how bad a picture is, for an order of pictures."""
        return 0.0

    def notes(self) -> Mapping[str, Any]:
        """Facts for the report that `prepare` found."""
        return {}


SUITES: dict[str, Callable[[], Suite]] = {}
"""What makes each suite, by name."""


def register(suite: type[Suite]) -> type[Suite]:
    """Add a suite, or replace one; the command line then knows it."""
    SUITES[suite.name] = suite
    return suite


def suite_of(name: str) -> Suite:
    """Make the suite of a name.

    Raises:
        SettingsError: there is none.
    """
    if name not in SUITES:
        raise SettingsError(f"suite {name!r}: known suites are {', '.join(SUITES)}")
    return SUITES[name]()


@dataclass
class Values:
    """Numbers of instances, each with the picture and the case that it is of."""

    numbers: list[float] = field(default_factory=list)
    pictures: list[int] = field(default_factory=list)
    cases: list[int] = field(default_factory=list)

    def add(self, number: float | None, picture: int, case: int) -> None:
        """Add a number; None is none."""
        if number is not None:
            self.numbers.append(float(number))
            self.pictures.append(picture)
            self.cases.append(case)

    def micro(self, *, rate: bool = False) -> Estimate | None:
        """Return the mean over all numbers."""
        return estimate(self.numbers, self.cases, rate=rate)

    def macro(self) -> Estimate | None:
        """Return the mean over pictures of each picture's mean, as the published code averages."""
        if not self.numbers:
            return None
        pictures, owner = np.unique(self.pictures, return_inverse=True)
        means = np.bincount(owner, self.numbers) / np.bincount(owner)
        case = {picture: number for picture, number in zip(self.pictures, self.cases, strict=True)}
        return estimate(means, [case[picture] for picture in pictures.tolist()])


def known(values: Mapping[str, Estimate | None]) -> dict[str, Estimate]:
    """Leave out metrics that have no value."""
    return {name: value for name, value in values.items() if value is not None}
