"""The course of a study: generate what is missing, evaluate what is there.

Each picture is one file, named by what it depends on. So a study that is stopped goes on, wherever its pictures are
made, and settings that are not given the order sample both orders of a layout once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from instancediffusion.evaluation.orders import Row
from instancediffusion.ray_pool import RayOptions, ray_map
from instancediffusion.scene import Scene

from .cells import Cell
from .compared import Compared
from .meters import Meter
from .pictures import claim, open_picture, picture_path, save_picture

JUDGED_TOGETHER = 8


@dataclass(frozen=True, eq=False)
class StudyRun:
    """A study in a folder.

    Attributes:
        path: the folder.
        cells: the conditions of the design.
        compared: by name, a row of the comparison and its whole `GenerationSettings`.
        meter: evaluates the pictures.
    """

    path: Path
    cells: Sequence[Cell]
    compared: Mapping[str, tuple[Compared, Any]]
    meter: Meter

    def claim(self, decisive: Mapping[str, Any], *, replace: bool = False) -> None:
        """Note what the folder's pictures depend on beside their conditions.

        Raises:
            RunConflictError: it holds those of another model, and `replace` was not asked for.
        """
        claim(self.path, decisive, replace=replace)

    def missing(self) -> list[tuple[str, Cell]]:
        """List the pictures that are not there, as (settings, condition), each once."""
        found: dict[Path, tuple[str, Cell]] = {}
        for name in self.compared:
            for cell in self.cells:
                path = self.picture_path(name, cell)
                if path not in found and not path.exists():
                    found[path] = (name, cell)
        return list(found.values())

    def make(self, pipeline: Any, missing: Sequence[tuple[str, Cell]], made: Callable[[int], None]) -> None:
        """Generate pictures, one at a time, so that each has seconds of its own."""
        for name, cell in missing:
            save_picture(*_drawn(pipeline, self._request(name, cell)), self.picture_path(name, cell))
            made(1)

    def spread(
        self,
        open_pipeline: Callable[[], Any],
        missing: Sequence[tuple[str, Cell]],
        engine: RayOptions,
        made: Callable[[int], None],
    ) -> None:
        """Generate pictures on a cluster; this process writes them."""
        for index, found in ray_map(open_pipeline, _drawn, [self._request(*one) for one in missing], engine):
            save_picture(*found, self.picture_path(*missing[index]))
            made(1)

    def _request(self, name: str, cell: Cell) -> tuple[Scene, int, Any]:
        """Scene, seed and settings of a picture."""
        return self._asked(name, cell), cell.seed, self.compared[name][1]

    def picture_path(self, name: str, cell: Cell) -> Path:
        """Return where the picture of a condition is, sampled with the settings of that name."""
        values = self.compared[name][1].decisive()
        return picture_path(self.path, name, [self._asked(name, cell).to_dict(), cell.seed, values])

    def rows(self, name: str, measured: Callable[[int], None]) -> Iterator[Row]:
        """Evaluate every picture there is of some settings; adds the `seconds` each took."""
        there = [cell for cell in self.cells if self.picture_path(name, cell).exists()]
        for start in range(0, len(there), JUDGED_TOGETHER):
            batch = there[start : start + JUDGED_TOGETHER]
            images = [open_picture(self.picture_path(name, cell)) for cell in batch]
            rows = self.meter.rows(batch, [image for image, _ in images], name)
            for row, (_, seconds) in zip(rows, images, strict=True):
                yield {**row, "seconds": seconds}
            measured(len(batch))

    def composite_rows(self, measured: Callable[[int], None]) -> Iterator[Row]:
        """Evaluate the world's own pictures of the conditions: the upper bound."""
        there = [cell for cell in self.cells if cell.truth.composite is not None]
        for start in range(0, len(there), JUDGED_TOGETHER):
            batch = there[start : start + JUDGED_TOGETHER]
            images = [Image.fromarray(cell.truth.composite) for cell in batch if cell.truth.composite is not None]
            yield from self.meter.rows(batch, images, "composites")
            measured(len(batch))

    def _asked(self, name: str, cell: Cell) -> Scene:
        return cell.asked(order=self.compared[name][0].order)


def _drawn(pipeline: Any, request: tuple[Scene, int, Any]) -> tuple[Image.Image, float]:
    """A picture and the seconds it took."""
    scene, seed, settings = request
    start = time.perf_counter()
    image = pipeline(scene, seed=seed, settings=settings).images[0]
    return image, time.perf_counter() - start
