"""What the page may add to a model: files below folders named when the studio was started, and uploaded pictures."""

from __future__ import annotations

import hashlib
import math
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from instancediffusion.additions import WEIGHTS, Additions, Weighted
from instancediffusion.errors import SettingsError
from instancediffusion.runs import write_atomic
from instancediffusion.studio.bounds import Limits, RefusedError
from instancediffusion.studio.intake import check_picture, decoded

KINDS = ("lora", "textual_inversion", "ip_adapter", "control")
_ID = re.compile(r"[0-9a-f]{64}\Z")
_MOST_WEIGHT = 100.0
_MOST_LISTED, _DEEPEST = 500, 4


class PictureStore:
    """Uploaded pictures below a folder, each in a folder of its own named by its hash.

    Args:
        folder: where they lie; made on the first write.
        limits: bounds; of more than `kept_pictures` the ones that were not used for longest are removed.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder, self._limits = folder, limits

    def put(self, data: object, name: object) -> dict[str, Any]:
        """Keep a picture (its bytes in base64) and return its `id` and `name`.

        Raises:
            RefusedError: it is no picture, damaged or too large.
        """
        content = decoded(data, self._limits)
        check_picture(content, self._limits)
        words = re.sub(r"[^A-Za-z0-9_.-]+", "_", name if isinstance(name, str) else "").strip("._")[-80:]
        own = hashlib.sha256(content).hexdigest()
        try:
            path = self.path(own)
        except RefusedError:
            path = self._folder / own / (words or "picture.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, content)
        now = time.time_ns()
        os.utime(path.parent, ns=(now, now))
        self._prune()
        return {"id": own, "name": path.name}

    def path(self, own: object) -> Path:
        """The file of a picture by its id.

        Raises:
            RefusedError: there is none.
        """
        folder = self._folder / own if isinstance(own, str) and _ID.match(own) else None
        if folder is not None and folder.is_dir() and not folder.is_symlink():
            for path in folder.iterdir():
                if path.is_file() and not path.is_symlink():
                    return path
        raise RefusedError("picture: it is not here any more; choose it again")

    def _prune(self) -> None:
        kept = [entry for entry in self._folder.iterdir() if _ID.match(entry.name)]
        kept.sort(key=lambda entry: entry.stat().st_mtime_ns)
        for entry in kept[: max(0, len(kept) - self._limits.kept_pictures)]:
            for path in entry.iterdir():
                path.unlink(missing_ok=True)
            entry.rmdir()


class Shelf:
    """The files that can be added.

    Args:
        folders: where LoRA files, textual inversions, IP-Adapters and ControlNets lie. Links in them are followed:
            who writes there is trusted.
        pictures: uploaded pictures.
        limits: bounds.
    """

    def __init__(self, folders: Sequence[Path], pictures: PictureStore, limits: Limits) -> None:
        self.folders = tuple(Path(os.path.abspath(folder)) for folder in folders)
        self.pictures, self._limits = pictures, limits

    def listing(self) -> dict[str, list[str]]:
        """Names to choose from: `files` of weights, and `folders` of models."""
        files, models = dict[str, None](), dict[str, None]()
        for root in self.folders:
            for path in _walk(root):
                name = path.relative_to(root).as_posix()
                if path.name == "config.json" and path.parent != root:
                    models[path.parent.relative_to(root).as_posix()] = None
                elif path.suffix == WEIGHTS:
                    files[name] = None
        inside = tuple(f"{model}/" for model in models)
        loose = [name for name in files if not name.startswith(inside)]
        return {"files": sorted(loose)[:_MOST_LISTED], "folders": sorted(models)[:_MOST_LISTED]}

    def read(self, given: object) -> Additions:
        """Read the additions of a request.

        Args:
            given: JSON data: lists `lora`, `textual_inversion` and `control`, and `ip_adapter`, each entry with a
                `path` below the folders. All but textual inversions may have a `weight`, controls have a `picture`, and
                IP-Adapters may: the id that `PictureStore.put` returned. None for nothing.

        Raises:
            SettingsError: an entry cannot be used.
            ModelError: a library is missing.
        """
        if given is None:
            return Additions()
        if not isinstance(given, Mapping) or set(given) - set(KINDS):
            raise SettingsError(f"additions: write a JSON object of {', '.join(KINDS)}")
        loras = [self._weighted(entry, place) for place, entry in self._entries(given, "lora")]
        texts = [self._weighted(entry, place, ()) for place, entry in self._entries(given, "textual_inversion")]
        controls = [(self._weighted(e, p, ("weight", "picture")), self._picture(e, p)) for p, e in
                    self._entries(given, "control")]  # fmt: skip
        for place, (_, picture) in enumerate(controls):
            if picture is None:
                raise SettingsError(f"control[{place}].picture: there is none; choose the picture it is to follow")
        adapter, shown = None, None
        if given.get("ip_adapter") is not None:
            entry = given["ip_adapter"]
            adapter = self._weighted(entry, "ip_adapter", ("weight", "picture"))
            shown = self._picture(entry, "ip_adapter")
        additions = Additions(
            loras=tuple(loras),
            embeddings=tuple(one.source for one in texts),
            ip_adapter=adapter,
            ip_adapter_image=shown,
            controlnets=tuple(net for net, _ in controls),
            controls=tuple(path for _, path in controls if path is not None),
        )
        additions.check()
        return additions

    def _entries(self, given: Mapping[str, Any], kind: str) -> Iterable[tuple[str, object]]:
        entries = given.get(kind) or []
        most = self._limits.additions
        if not isinstance(entries, list) or len(entries) > most:
            raise SettingsError(f"{kind}: write a list of at most {most} entries")
        return [(f"{kind}[{number}]", entry) for number, entry in enumerate(entries)]

    def _weighted(self, entry: object, place: str, more: Sequence[str] = ("weight",)) -> Weighted:
        names = ("path", *more)
        if not isinstance(entry, Mapping) or set(entry) - set(names):
            raise SettingsError(f"{place}: write a JSON object of {', '.join(names)}")
        weight = entry.get("weight", 1.0)
        number = isinstance(weight, int | float) and not isinstance(weight, bool) and math.isfinite(weight)
        if not number or abs(weight) > _MOST_WEIGHT:
            raise SettingsError(f"{place}.weight: {str(weight)[:20]!r} is not a number up to {_MOST_WEIGHT:g}")
        return Weighted(str(self._file(entry.get("path"), f"{place}.path")), float(weight))

    def _file(self, name: object, place: str) -> Path:
        """A file or folder below one of the folders, by its path in there or its whole path."""
        shelves = " or ".join(map(str, self.folders))
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise SettingsError(f"{place}: there is none; name a file in {shelves}")
        for root in self.folders:
            # Decided by the text, so that links in there may lead elsewhere and names may not.
            path = Path(os.path.normpath(root / name.strip()))
            if path.is_relative_to(root) and path != root and path.exists():
                return path
        raise SettingsError(
            f"{place}: there is no {name.strip()[:120]!r} in {shelves}; put it there, or start the studio with --models"
        )

    def _picture(self, entry: object, place: str) -> Path | None:
        own = entry.get("picture") if isinstance(entry, Mapping) else None
        if own is None:
            return None
        try:
            return self.pictures.path(own)
        except RefusedError as error:
            raise SettingsError(f"{place}.{error}") from None


def _walk(root: Path) -> Iterator[Path]:
    """The files below a folder, not too deep; links to folders are followed."""
    for folder, inner, files in os.walk(root, followlinks=True):
        depth = len(Path(folder).relative_to(root).parts)
        inner[:] = sorted(name for name in inner if depth < _DEEPEST and not name.startswith("."))
        yield from (Path(folder) / name for name in files)
