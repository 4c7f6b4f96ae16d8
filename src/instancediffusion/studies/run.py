"""The course of a study: make what is missing, measure what is there.

Each picture is one file, named by what it depends on. So a study that is stopped goes on, several processes can share
one folder, and settings that are not told the order draw both orders of a layout once.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from instancediffusion.runs import RunConflictError, atomic_path, write_json
from instancediffusion.scene import Scene

from .cells import Cell
from .compared import Compared
from .meters import Meter
from .metrics import Row

SETTINGS = "settings.json"
SECONDS = "seconds"
JUDGED_TOGETHER = 8


@dataclass(frozen=True, eq=False)
class StudyRun:
    """A study in a folder.

    Attributes:
        path: the folder.
        cells: the design.
        compared: by name, a row of the comparison and its whole `GenerationSettings`.
        meter: measures the pictures.
    """

    path: Path
    cells: Sequence[Cell]
    compared: Mapping[str, tuple[Compared, Any]]
    meter: Meter

    def claim(self, decisive: Mapping[str, Any], *, replace: bool = False) -> None:
        """Note what the folder's pictures depend on beside their cells.

        Raises:
            RunConflictError: it holds those of another model, and `replace` was not asked for.
        """
        noted = self.path / SETTINGS
        if noted.exists():
            if json.loads(noted.read_text(encoding="utf-8")) == dict(decisive):
                return
            if not replace:
                raise RunConflictError(
                    f"{self.path} holds pictures of another model ({SETTINGS} there says which); choose another "
                    "folder, or add --overwrite"
                )
            for picture in (self.path / "pictures").rglob("*.png"):
                picture.unlink()
        write_json(noted, dict(decisive))

    def missing(self, part: int = 0, parts: int = 1) -> list[tuple[str, Cell]]:
        """List the pictures that are not there, as (settings, cell), each once; of several processes, one's share."""
        found: dict[Path, tuple[str, Cell]] = {}
        for name in self.compared:
            for cell in self.cells:
                path = self.picture_path(name, cell)
                if path not in found and not path.exists():
                    found[path] = (name, cell)
        return [item for number, item in enumerate(found.values()) if number % parts == part]

    def make(self, pipeline: Any, missing: Sequence[tuple[str, Cell]], made: Callable[[int], None]) -> None:
        """Draw pictures, one at a time, so that each has seconds of its own."""
        for name, cell in missing:
            settings = self._settings(name, cell)
            start = time.perf_counter()
            image = pipeline(self._asked(name, cell), seed=cell.seed, settings=settings).images[0]
            notes = PngInfo()
            notes.add_text(SECONDS, f"{time.perf_counter() - start:.3f}")
            with atomic_path(self.picture_path(name, cell)) as temporary:
                image.save(temporary, "PNG", pnginfo=notes)
            made(1)

    def picture_path(self, name: str, cell: Cell) -> Path:
        """Say where the picture of a cell is, drawn with the settings of that name."""
        values = self._settings(name, cell).to_dict()
        for idle in ("max_batch_rows", "place_objects"):  # no picture of a study depends on them
            values.pop(idle)
        told = json.dumps([self._asked(name, cell).to_dict(), cell.seed, values], sort_keys=True)
        return self.path / "pictures" / name / f"{hashlib.sha256(told.encode()).hexdigest()[:20]}.png"

    def rows(self, name: str, measured: Callable[[int], None]) -> Iterator[Row]:
        """Measure every picture there is of some settings; adds the `seconds` each took."""
        there = [cell for cell in self.cells if self.picture_path(name, cell).exists()]
        for start in range(0, len(there), JUDGED_TOGETHER):
            batch = there[start : start + JUDGED_TOGETHER]
            images = [self._open(self.picture_path(name, cell)) for cell in batch]
            rows = self.meter.rows(batch, [image for image, _ in images], name)
            for row, (_, seconds) in zip(rows, images, strict=True):
                yield {**row, "seconds": seconds}
            measured(len(batch))

    def composite_rows(self, measured: Callable[[int], None]) -> Iterator[Row]:
        """Measure the world's own pictures of the cells: the most that can be reached."""
        there = [cell for cell in self.cells if cell.truth.composite is not None]
        for start in range(0, len(there), JUDGED_TOGETHER):
            batch = there[start : start + JUDGED_TOGETHER]
            images = [Image.fromarray(cell.truth.composite) for cell in batch if cell.truth.composite is not None]
            yield from self.meter.rows(batch, images, "composites")
            measured(len(batch))

    def _asked(self, name: str, cell: Cell) -> Scene:
        return cell.asked(order=self.compared[name][0].order)

    def _settings(self, name: str, cell: Cell) -> Any:
        return self.compared[name][1].replace(**cell.values)

    @staticmethod
    def _open(path: Path) -> tuple[Image.Image, float]:
        with Image.open(path) as image:
            return image.convert("RGB"), float(image.info.get(SECONDS, "nan"))
