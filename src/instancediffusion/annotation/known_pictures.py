"""Which pictures of a folder are as they were when they were last read, told without reading them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from instancediffusion.datasets import SceneDataset
from instancediffusion.runs import write_atomic

from .unlabelled_pictures import PictureFolder

_SETTLED_NS = 2_000_000_000
"""A file that changed less than this before it was read may change again without another time to show for it."""


class KnownPictures:
    """Marks of pictures by what the file system says of their files: length, times and number.

    Labels of a data set lie elsewhere and are read each time, so that nothing is known of one that is labelled.

    Args:
        file: where they are kept; any content will do.
        dataset: the pictures.
        recipe: what marks depend on beside the pictures.
    """

    def __init__(self, file: Path, dataset: SceneDataset, recipe: str) -> None:
        self._file, self._recipe = file, recipe
        self._pictures = dataset if isinstance(dataset, PictureFolder) else None
        self._known: dict[str, list[object]] = {}
        self._now: dict[str, list[object]] = {}
        self._asked: dict[int, tuple[list[int], int]] = {}
        if self._pictures is not None:
            try:
                kept = json.loads(file.read_text(encoding="utf-8"))
                self._known = dict(kept["pictures"]) if kept["recipe"] == recipe else {}
            except (OSError, ValueError, KeyError, TypeError):
                pass

    def mark(self, index: int) -> str | None:
        """The mark of a picture whose file has not changed, else None; asked before the file is read."""
        if self._pictures is None:
            return None
        asked = time.time_ns()
        try:
            facts = os.stat(self._pictures.files[index])
        except OSError:
            return None
        stamp = [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]
        key = self._pictures.key(index)
        known = self._known.get(key)
        if known is not None and known[:-1] == stamp:
            self._now[key] = known
            return str(known[-1])
        self._asked[index] = stamp, asked
        return None

    def note(self, index: int, mark: str) -> None:
        """Note the mark of a picture that was read since it was asked for."""
        stamp, asked = self._asked.pop(index, ([], 0))
        if self._pictures is not None and stamp and max(stamp[1:3]) < asked - _SETTLED_NS:
            self._now[self._pictures.key(index)] = [*stamp, mark]

    def save(self) -> None:
        """Keep what is known now."""
        if self._now != self._known:
            write_atomic(self._file, json.dumps({"recipe": self._recipe, "pictures": self._now}))
