"""Results on disk: one run directory for each, listed again after a restart; nothing else is ever touched."""

from __future__ import annotations

import io
import re
import secrets
import threading
import zipfile
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from instancediffusion.runs import MANIFEST, Item, ManifestError, RunDirectory, run_stamp
from instancediffusion.studio.bounds import RefusedError

REQUEST = "request"
"""Key of the item that holds what was asked for; its file is the scene."""
SCENE_FILE = "scene.json"
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,120}\Z")


class RunStore:
    """The run directories below a root.

    Args:
        root: the folder; made on the first write. Everything the studio keeps lies in it.
        clock: gives the time of a new run.
    """

    def __init__(self, root: Path, clock: Callable[[], datetime] | None = None) -> None:
        self.root = root
        self._clock = clock or (lambda: datetime.now(timezone.utc))
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Any, dict[str, Any]]] = {}

    @property
    def folder(self) -> Path:
        """Where the runs lie."""
        return self.root / "runs"

    def new(self) -> str:
        """Make the directory of a new run and return its id, which sorts by time."""
        with self._lock:
            while True:
                name = f"{self._clock():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
                try:
                    (self.folder / name).mkdir(parents=True)
                except FileExistsError:
                    continue
                return name

    def path(self, run: str) -> Path:
        """The directory of a run.

        Raises:
            RefusedError: the id is malformed, there is no such run, or the path leads out of the root.
        """
        if not isinstance(run, str) or not _ID.match(run):
            raise RefusedError("run: that is no id of a result")
        path = self.folder / run
        if path.is_symlink() or not path.is_dir() or path.resolve().parent != self.folder.resolve():
            raise RefusedError(f"run: there is no result {run}")
        return path

    def discard_empty(self, run: str) -> None:
        """Remove the directory of a run that wrote nothing."""
        path = self.path(run)
        if not any(path.iterdir()):
            path.rmdir()

    def ids(self) -> list[str]:
        """The ids of all runs, the newest first."""
        if not self.folder.is_dir():
            return []
        names = (entry.name for entry in self.folder.iterdir() if entry.is_dir() and not entry.is_symlink())
        return sorted((name for name in names if _ID.match(name)), reverse=True)

    def listing(self, limit: int, before: str | None = None) -> list[dict[str, Any]]:
        """Summaries of the newest runs that hold pictures.

        Args:
            limit: most runs to list.
            before: list runs older than this id only.
        """
        found = []
        for run in self.ids():
            if before is not None and run >= before:
                continue
            summary = self._summary(run)
            if summary is not None:
                found.append(summary)
            if len(found) >= limit:
                break
        return found

    def details(self, run: str) -> dict[str, Any]:
        """A summary with the scene and what was asked for.

        Raises:
            RefusedError: there is no such run, or its manifest cannot be read.
        """
        items = self._items(run)
        summary = _summary_of(run, items)
        if summary is None:
            raise RefusedError(f"run: {run} holds no picture")
        asked = items.get(REQUEST)
        scenes = {key: item.record.get("scene") for key, item in items.items() if "seed" in item.record}
        settings = {key: item.record.get("settings") for key, item in items.items() if "seed" in item.record}
        return {
            **summary,
            "request": _exact(asked.record) if asked else {},
            "scenes": scenes,
            "settings": settings,
        }

    def file(self, run: str, name: str) -> Path:
        """The path of a file of a run: its manifest, or one its manifest names.

        Raises:
            RefusedError: there is none, or it is not a plain file of the length that the manifest states.
        """
        folder = self.path(run)
        if not isinstance(name, str) or not _NAME.match(name):
            raise RefusedError("file: that is no name of a file of a result")
        lengths = {key: entry["bytes"] for item in self._items(run).values() for key, entry in item.files.items()}
        path = folder / name
        if (name != MANIFEST and name not in lengths) or path.is_symlink() or not path.is_file():
            raise RefusedError(f"file: {run} has no file {name}")
        if name != MANIFEST and path.stat().st_size != lengths[name]:
            raise RefusedError(f"file: {name} of {run} is damaged")
        return path

    def zipped(self, run: str) -> bytes:
        """All files of a run in one archive."""
        names = [MANIFEST, *(name for item in self._items(run).values() for name in item.files)]
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # PNG is compressed already
            for name in dict.fromkeys(names):
                archive.writestr(f"{run}/{name}", self.file(run, name).read_bytes())
        return buffer.getvalue()

    def _items(self, run: str) -> dict[str, Item]:
        path = self.path(run)
        try:
            return RunDirectory(path, "generate").items()
        except (ManifestError, OSError, TypeError) as error:
            raise RefusedError(f"run: the manifest of {run} cannot be read") from error

    def _summary(self, run: str) -> dict[str, Any] | None:
        """The summary of a run, read anew only when its manifest changed; None if it holds no picture."""
        try:
            stamp = run_stamp(self.folder / run)
            with self._lock:
                known = self._known.get(run)
            if known is not None and known[0] == stamp:
                return known[1]
            summary = _summary_of(run, self._items(run))
        except (OSError, RefusedError):
            return None
        if summary is not None:
            with self._lock:
                self._known[run] = (stamp, summary)
                while len(self._known) > 2000:
                    self._known.pop(next(iter(self._known)))
        return summary


def _exact(request: dict[str, Any]) -> dict[str, Any]:
    """A request with its seeds as a page can read them."""
    return {**request, "seeds": [exact_seed(seed) for seed in request.get("seeds", ())]}


def _summary_of(run: str, items: dict[str, Item]) -> dict[str, Any] | None:
    made = {key: item for key, item in items.items() if "seed" in item.record}
    if not made:
        return None
    asked = items[REQUEST].record if REQUEST in items else {}
    first = next(iter(made.values())).record
    pictures = [
        {
            "key": key,
            "file": next(iter(item.files)),
            "seed": exact_seed(item.record["seed"]),
            "height": item.record["size"][0],
            "width": item.record["size"][1],
            "cell": item.record.get("cell"),
            "stopped": bool(item.record.get("stopped")),
        }
        for key, item in made.items()
    ]
    return {
        "id": run,
        "finished": max(item.finished for item in made.values()),
        "prompt": first["scene"]["prompt"],
        "instances": len(first["scene"]["instances"]),
        "model": asked.get("asked_for", first.get("asked_for", "")),
        "grid": asked.get("grid"),
        "pictures": pictures,
    }


def exact_seed(seed: int) -> int | str:
    """A seed as a page can read it: JavaScript's numbers are exact up to 2**53 - 1, so larger ones go as text."""
    return seed if seed < 2**53 else str(seed)
