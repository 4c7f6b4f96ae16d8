"""From pictures and what they were to show to a report."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from instancediffusion.data.drawn_world import DrawnSample, ObjectClass
from instancediffusion.errors import SettingsError
from instancediffusion.scene import KINDS, Scene

from .frechet import FeatureStatistics, frechet_distance
from .metrics import InstanceMetrics
from .report import EvaluationReport, GroupReport, ScoreTable
from .scores import InstanceScore
from .seen import Picture, Seen
from .truth import Truth, truth_of_sample, truth_of_scene

BATCH = 8


class PictureJudge(Protocol):
    """An evaluator (judge): it detects the objects of a picture.

    One that also states which classes it knows, as `kinds`, lets captions of scenes be read without naming them.
    """

    def look(self, images: Sequence[Picture]) -> list[Seen]:
        """Return the detections of each picture: PIL pictures, or (H, W, 3) uint8."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Return JSON-like facts about the judge."""
        ...


_JUDGES: list[Callable[[str], PictureJudge]] = []


def register_judge(load: Callable[[str], PictureJudge]) -> None:
    """Say what opens a judge's folder; the last one counts. A project that has judges does so when it is imported."""
    _JUDGES.append(load)


def load_judge(folder: str) -> PictureJudge:
    """Open a judge's folder.

    Raises:
        SettingsError: nothing that was imported knows judges.
        CheckpointError: the folder holds no judge, or a damaged one.
    """
    if not _JUDGES:
        raise SettingsError(f"judge: {folder}: nothing opens judges yet; import the project that trained it first")
    return _JUDGES[-1](folder)


def classes_of(judge: PictureJudge) -> Sequence[ObjectClass]:
    """The classes that a judge knows.

    Raises:
        SettingsError: it does not state them.
    """
    kinds: Sequence[ObjectClass] | None = getattr(judge, "kinds", None)
    if kinds is None:
        raise SettingsError(
            f"kinds: {type(judge).__name__} does not state the classes that captions may name; give them, or give the "
            "judge an attribute `kinds`"
        )
    return kinds


@dataclass(frozen=True, eq=False)
class Judged:
    """One scored picture, as callbacks get it.

    Attributes:
        image: the picture.
        truth: what it was to show.
        seen: the judge's detections.
        scores: of each instance.
    """

    image: Picture
    truth: Truth
    seen: Seen
    scores: Sequence[InstanceScore]

    @property
    def faults(self) -> int:
        """Instances that are not as asked for."""
        return sum(not score.as_asked for score in self.scores)


class Evaluator:
    """Scores groups of pictures with one judge; a composite is judged once for all groups that ask alike of it.

    Args:
        judge: the judge.
        reference: features of composites that no group holds, to measure Frechet distances to; None measures none.
    """

    def __init__(self, judge: PictureJudge, reference: FeatureStatistics | None = None) -> None:
        self.judge, self.reference = judge, reference
        self._composites: dict[bytes, Seen] = {}

    def group(
        self, name: str, pairs: Iterable[tuple[Picture, Truth]], judged: Callable[[Judged], None] | None = None
    ) -> GroupReport:
        """Score pictures whose scenes give the same kinds of location.

        Args:
            name: of the group.
            pairs: pictures with what each was to show.
            judged: a callback, called with each picture when it is scored.
        """
        made, best, others = _Side(self.reference), _Side(self.reference), _Side(None)
        first: Truth | None = None
        last: Truth | None = None
        for batch in _batches(pairs, BATCH):
            seen = self.judge.look([image for image, _ in batch])
            for (image, truth), one in zip(batch, seen, strict=True):
                scores = made.update(one, truth)
                if judged is not None:
                    judged(Judged(image, truth, one, scores))
            self._add_composites(best, [truth for _, truth in batch])
            for _, truth in batch:
                if truth.composite is not None:
                    self._add_other(others, last, truth)
                    first, last = first or truth, truth
        if first is not last and first is not None:
            self._add_other(others, last, first)
        return GroupReport(
            name,
            made.table(),
            best.table() if best.metrics.pictures else None,
            others.table() if others.metrics.pictures else None,
        )

    def _add_composites(self, side: _Side, truths: Sequence[Truth]) -> None:
        keyed = [(_key(truth.composite), truth, truth.composite) for truth in truths if truth.composite is not None]
        new = {key: image for key, _, image in keyed if key not in self._composites}
        seen = self.judge.look(list(new.values())) if new else []
        self._composites.update(zip(new, seen, strict=True))
        for key, truth, _ in keyed:
            side.update(self._composites[key], truth)

    def _add_other(self, side: _Side, asked: Truth | None, other: Truth) -> None:
        """Score the composite of one layout as if another had been asked for."""
        if asked is not None and other.composite is not None:
            side.update(self._composites[_key(other.composite)], asked)


def evaluate(
    pairs: Iterable[tuple[Picture, Truth | DrawnSample | Scene]],
    judge: PictureJudge,
    *,
    name: str = "all",
    kinds: Sequence[ObjectClass] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> EvaluationReport:
    """Score pictures against what they were to show.

    Args:
        pairs: pictures, each with its truth. A world's sample asks for everything it holds. A `Scene` asks for its
            locations, and for what its captions say in words of `kinds`; it has no composite.
        judge: the judge.
        name: of the one group the report will hold.
        kinds: vocabulary for the captions of scenes; None: what the judge knows, see `classes_of`.
        facts: what the report should say of where the pictures come from.
    """
    group = Evaluator(judge).group(name, ((image, _as_truth(truth, judge, kinds)) for image, truth in pairs))
    return EvaluationReport((group,), dict(facts or {}), dict(judge.describe()))


def _as_truth(value: Truth | DrawnSample | Scene, judge: PictureJudge, kinds: Sequence[ObjectClass] | None) -> Truth:
    if isinstance(value, Truth):
        return value
    if isinstance(value, Scene):
        return truth_of_scene(value, classes_of(judge) if kinds is None else kinds)
    return truth_of_sample(value, value.to_scene(KINDS), everything=True)


def _key(composite: npt.NDArray[np.uint8]) -> bytes:
    """A composite's name among those that are judged already."""
    return hashlib.sha256(np.ascontiguousarray(composite).tobytes()).digest()


class _Side:
    """The scores of one set of pictures, in the making."""

    def __init__(self, reference: FeatureStatistics | None) -> None:
        self.metrics, self._reference = InstanceMetrics(), reference
        self._features: list[npt.NDArray[np.float32]] = []

    def update(self, seen: Seen, truth: Truth) -> list[InstanceScore]:
        if seen.features is not None:
            self._features.append(seen.features)
        return self.metrics.update(seen, truth)

    def table(self) -> ScoreTable:
        return ScoreTable(self.metrics.pictures, self.metrics.compute(), self.metrics.breakdown(), self._distance())

    def _distance(self) -> float | None:
        if self._reference is None or min(self._reference.count, len(self._features)) < 2:
            return None
        own = FeatureStatistics(len(self._features[0]))
        own.update(np.stack(self._features))
        return frechet_distance(own, self._reference)


def _batches(pairs: Iterable[tuple[Picture, Truth]], size: int) -> Iterator[list[tuple[Picture, Truth]]]:
    iterator = iter(pairs)
    while batch := list(islice(iterator, size)):
        yield batch
