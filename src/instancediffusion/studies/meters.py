"""Who measures a study's pictures: the drawings of the synthetic world, a judge of photographs, or nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from PIL import Image

from instancediffusion.evaluation import DrawingsJudge, PictureJudge, Seen
from instancediffusion.evaluation.orders import Row, Sighting
from instancediffusion.scene import Scene

from .cells import Cell
from .metrics import measure, row_of
from .photograph_rows import measure_sighting


class Meter(Protocol):
    """Turns pictures into numbers."""

    def rows(self, cells: Sequence[Cell], images: Sequence[Image.Image], settings: str) -> Iterator[Row]:
        """Yield the numbers of a picture for each cell; `settings` is the name of what drew them."""

    def describe(self) -> Mapping[str, Any] | None:
        """Return JSON-like facts, or None if there is nothing to say."""


class DrawingsMeter:
    """Measures pictures of the synthetic world.

    Args:
        finder: knows the drawings of the world's objects.
        judge: says which objects are there, where, and as asked; None lets the finder say it, which sees nothing that
            was not asked for.
    """

    def __init__(self, finder: DrawingsJudge, judge: PictureJudge | None = None) -> None:
        self._finder, self._judge = finder, judge

    def rows(self, cells: Sequence[Cell], images: Sequence[Image.Image], settings: str) -> Iterator[Row]:
        """Yield what `metrics.measure` finds."""
        for cell, image, seen in zip(cells, images, self._look(cells, images), strict=True):
            row = measure(cell, image, seen, self._finder, settings)
            yield row if self._judge else row | {"doubled": None}

    def _look(self, cells: Sequence[Cell], images: Sequence[Image.Image]) -> Sequence[Seen]:
        if self._judge is None:
            return self._finder.look_for(images, [cell.truth for cell in cells])
        return self._judge.look(images)

    def describe(self) -> Mapping[str, Any]:
        """Return the judge's facts."""
        return (self._judge or self._finder).describe()


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
