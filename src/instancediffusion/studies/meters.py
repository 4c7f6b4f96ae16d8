"""Who measures a study's pictures: the drawings of the synthetic world, a judge of photographs, or nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from PIL import Image

from instancediffusion.evaluation import Judge
from instancediffusion.scene import Scene

from .cells import Cell
from .metrics import Row, measure, row_of
from .ownership import Drawings
from .photograph_rows import measure_sighting
from .sightings import Sighting


class Meter(Protocol):
    """Turns pictures into numbers."""

    def rows(self, cells: Sequence[Cell], images: Sequence[Image.Image], settings: str) -> Iterator[Row]:
        """Yield the numbers of a picture for each cell; `settings` is the name of what drew them."""

    def describe(self) -> Mapping[str, Any] | None:
        """Return JSON-like facts, or None if there is nothing to say."""


class DrawingsMeter:
    """Measures pictures of the synthetic world.

    Args:
        drawings: of the world's objects.
        judge: sees what the drawings alone do not tell; None leaves those measures out.
    """

    def __init__(self, drawings: Drawings, judge: Judge | None = None) -> None:
        self._drawings, self._judge = drawings, judge

    def rows(self, cells: Sequence[Cell], images: Sequence[Image.Image], settings: str) -> Iterator[Row]:
        """Yield what `metrics.measure` finds."""
        seen = [None] * len(cells) if self._judge is None else self._judge.look(images)
        for cell, image, one in zip(cells, images, seen, strict=True):
            yield measure(cell, image, one, self._drawings, settings)

    def describe(self) -> Mapping[str, Any] | None:
        """Return the judge's facts."""
        return None if self._judge is None else self._judge.describe()


class SceneJudge(Protocol):
    """Such as `photographs.PhotographJudge`."""

    def look(self, image: Image.Image, scene: Scene) -> Sighting:
        """Look for a scene's instances in a picture."""

    def describe(self) -> Mapping[str, Any]:
        """Return JSON-like facts."""


class PhotographMeter:
    """Measures pictures of any model.

    Args:
        judge: looks at them.
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
    """Measures nothing: the report shows pictures and times."""

    def rows(self, cells: Sequence[Cell], images: Sequence[Image.Image], settings: str) -> Iterator[Row]:
        """Yield what each picture belongs to."""
        yield from (row_of(cell, settings) for cell, _ in zip(cells, images, strict=True))

    def describe(self) -> Mapping[str, Any] | None:
        """Return None."""
        return None
