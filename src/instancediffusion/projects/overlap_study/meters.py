"""How a study's pictures are evaluated: by a judge of the synthetic world, a judge of photographs, or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from instancediffusion.errors import SettingsError
from instancediffusion.evaluation import PictureJudge
from instancediffusion.evaluation.orders import Row, Sighting
from instancediffusion.projects.emoji_judge import Judge
from instancediffusion.projects.emoji_judge.evaluation_run import UNTRAINED, check_words
from instancediffusion.projects.emoji_world import World
from instancediffusion.scene import Scene

from .cells import Cell
from .photograph_rows import measure_sighting
from .seen_rows import measure_seen, seen_for_order
from .study_metrics import row_of


class Meter(Protocol):
    """Computes the metrics of pictures."""

    def rows(self, cells: Sequence[Cell], images: Sequence[Image.Image], settings: str) -> Iterator[Row]:
        """Yield the metrics of a picture for each condition; `settings` is the name of those it was sampled with."""

    def describe(self) -> Mapping[str, Any] | None:
        """Return JSON-like facts, or None if there is nothing to say."""


class JudgeMeter:
    """Evaluates pictures of the synthetic world.

    Args:
        judge: detects which objects a picture shows and where, without being given what was asked for.
    """

    def __init__(self, judge: PictureJudge) -> None:
        self._judge = judge

    def rows(self, cells: Sequence[Cell], images: Sequence[Image.Image], settings: str) -> Iterator[Row]:
        """Yield what `seen_rows.measure_seen` finds."""
        for cell, image, seen in zip(cells, images, self._judge.look(images), strict=True):
            for_order = None if cell.pair is None else seen_for_order(self._judge, cell, image, seen)
            yield measure_seen(cell, seen, settings, for_order)

    def describe(self) -> Mapping[str, Any]:
        """Return the judge's facts."""
        return self._judge.describe()


class SceneJudge(Protocol):
    """Such as `photographs.PhotographJudge`."""

    def look(self, image: Image.Image, scene: Scene) -> Sighting:
        """Detect a scene's instances in a picture."""

    def describe(self) -> Mapping[str, Any]:
        """Return JSON-like facts."""


class PhotographMeter:
    """Evaluates pictures of any model.

    Args:
        judge: the evaluator: a detector and a segmenter.
    """

    def __init__(self, judge: SceneJudge) -> None:
        self._judge = judge

    def rows(self, cells: Sequence[Cell], images: Sequence[Image.Image], settings: str) -> Iterator[Row]:
        """Yield what `photograph_rows.measure_sighting` finds."""
        for cell, image in zip(cells, images, strict=True):
            yield measure_sighting(cell, self._judge.look(image, cell.scene), settings)

    def describe(self) -> Mapping[str, Any] | None:
        """Return the judge's facts."""
        return self._judge.describe()


class NoMeter:
    """Computes no metrics: the report shows pictures and times."""

    def rows(self, cells: Sequence[Cell], images: Sequence[Image.Image], settings: str) -> Iterator[Row]:
        """Yield what each picture belongs to."""
        yield from (row_of(cell, settings) for cell, _ in zip(cells, images, strict=True))

    def describe(self) -> Mapping[str, Any] | None:
        """Return None."""
        return None


def open_meter(
    world: World | None, judge_folder: Path | None, detector: str | None, segmenter: str | None, device: str
) -> JudgeMeter | PhotographMeter | NoMeter:
    """Choose how the pictures are evaluated.

    Args:
        world: the one that they are of, if they are of one.
        judge_folder: of a trained judge.
        detector: of objects in photographs: hub id or folder; None where the segmenter is named takes the usual one.
        segmenter: of photographs, likewise.
        device: where the latter run.

    Raises:
        SettingsError: the choice does not suit the pictures, or the world's pictures have no judge.
        CheckpointError: the folder holds no judge, or a damaged one.
    """
    if detector or segmenter:
        if judge_folder is not None:
            raise SettingsError("--judge knows the synthetic world, --detector and --segmenter photographs: use one")
        from instancediffusion.evaluation.suites.phrase_models import DETECTOR, SEGMENTER

        from .photographs import PhotographJudge

        return PhotographMeter(PhotographJudge(detector or DETECTOR, segmenter or SEGMENTER, device))
    if world is None:
        if judge_folder is not None:
            raise SettingsError("--judge knows the synthetic world alone; give a --detector for these pictures")
        return NoMeter()
    if judge_folder is None:
        raise SettingsError(UNTRAINED)
    judge = Judge.load(judge_folder)
    check_words(judge, world)
    return JudgeMeter(judge)
