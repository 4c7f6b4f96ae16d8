"""Run directories: what a run wrote, and whether it may be skipped when the run is started again.

Two promises. A file that can be seen is whole: it is written under another name in the same folder, flushed to the
disk and renamed, so a run that is killed leaves whole files and, at worst, a stray temporary one. And nothing is
overwritten in silence: an item is skipped when its fingerprint (a hash of everything it depends on) and its files are
what the manifest says, and replacing something different is a decision the caller states.

One process writes to a run directory at a time; several may read it.
"""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1
_TEMPORARY = ".partial"


class RunConflictError(FileExistsError):
    """A run would overwrite something it did not make with these settings."""


class ManifestError(OSError):
    """A manifest that is not one of ours, is damaged, or comes from a newer version."""


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path in the folder of `path`, and move it there when the block ends well.

    Args:
        path: the file to write. Its folder is made if needed; an existing file is replaced.

    Yields:
        The temporary path, an empty file with the same suffix. It is removed if the block raises.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=_TEMPORARY + target.suffix, dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files only their owner can read; a result is as readable as any new file.
        temporary.chmod(0o666 & ~_umask())
        _flush(temporary)
        temporary.replace(target)
        _flush(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a whole file or nothing; text is written as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a value as indented JSON, whole or not at all.

    Raises:
        ValueError: the value holds NaN or infinity, which JSON has no word for.
    """
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def fingerprint(*parts: Any) -> str:
    """Hash JSON-like values (mappings, lists, strings, numbers, None) to SHA-256 in hex, whatever the order of keys."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Hash the content of a file: SHA-256 in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def cache_folder(chosen: str | os.PathLike[str] | None = None) -> Path:
    """Return where things that can be made again are kept.

    Args:
        chosen: the folder a caller asked for; None means `$INSTANCEDIFFUSION_CACHE`, else `instancediffusion` in the
            user's own cache folder. It need not exist.
    """
    if given := chosen or os.environ.get("INSTANCEDIFFUSION_CACHE"):
        return Path(given)
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "instancediffusion" / "cache"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "instancediffusion"


class ItemState(str, Enum):
    """What a run directory knows about one item."""

    MISSING = "missing"
    """Never finished here."""
    COMPLETE = "complete"
    """Finished with the same fingerprint, and its files are whole."""
    DAMAGED = "damaged"
    """Finished with the same fingerprint, but a file is gone or has another length: compute it again."""
    DIFFERENT = "different"
    """Finished with another fingerprint: replacing it has to be asked for."""


@dataclass(frozen=True)
class Item:
    """One finished item of a run.

    Attributes:
        fingerprint: hash of everything the item depends on (scene, settings, weights, seed).
        files: names relative to the run directory -> {"sha256": hex, "bytes": length}.
        record: what the caller wishes to keep beside the files: settings, timings, versions.
        finished: UTC time in ISO 8601.
    """

    fingerprint: str
    files: dict[str, dict[str, Any]]
    record: dict[str, Any]
    finished: str


class RunDirectory:
    """A folder of results with a `manifest.json` that says how each was made.

    Args:
        path: the folder; made, with its parents, on the first write.
        kind: what sort of run this is (`"generate"`, `"train"`); a folder of another kind is refused.

    Raises:
        ManifestError: the folder's manifest is damaged, of another kind, or of a newer version.
    """

    def __init__(self, path: str | os.PathLike[str], kind: str) -> None:
        self.path = Path(path)
        self.kind = kind
        self._swept = False
        self._manifest()

    def state(self, key: str, fingerprint: str) -> ItemState:
        """Tell whether the item `key` has to be computed, given the fingerprint it would have now."""
        item = self.items().get(key)
        if item is None:
            return ItemState.MISSING
        if item.fingerprint != fingerprint:
            return ItemState.DIFFERENT
        whole = all(_has_length(self.path / name, entry["bytes"]) for name, entry in item.files.items())
        return ItemState.COMPLETE if whole else ItemState.DAMAGED

    def is_complete(self, key: str, fingerprint: str) -> bool:
        """Tell whether the item may be skipped."""
        return self.state(key, fingerprint) is ItemState.COMPLETE

    def put(
        self,
        key: str,
        fingerprint: str,
        files: Mapping[str, bytes | str],
        record: Mapping[str, Any] | None = None,
        *,
        replace: bool = False,
    ) -> Item:
        """Write an item's files, then its line in the manifest. Until that line is there the item counts as missing.

        Args:
            key: the item's name, unique in the run.
            fingerprint: hash of everything it depends on.
            files: names relative to the run directory, without `..` -> contents.
            record: JSON-like values to keep in the manifest.
            replace: allow what is there from other settings, or from nobody knows where, to be overwritten.

        Raises:
            RunConflictError: the item exists with another fingerprint, or one of the files exists and belongs to
                another item or to no run at all; nothing is written.
        """
        self.check(key, fingerprint, list(files), replace=replace)
        if not self._swept:  # what a killed run left half written; we are the one that writes here now
            for litter in self.path.rglob(f".*{_TEMPORARY}*"):
                litter.unlink(missing_ok=True)
            self._swept = True
        manifest = self._manifest()
        manifest["pending"][key] = list(files)
        write_json(self.path / MANIFEST, manifest)
        entries = {}
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            write_atomic(self.path / name, data)
            entries[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        item = Item(fingerprint, entries, dict(record or {}), _now())
        del manifest["pending"][key]
        manifest["items"][key] = vars(item)
        write_json(self.path / MANIFEST, manifest)
        return item

    def check(self, key: str, fingerprint: str, names: Sequence[str], *, replace: bool = False) -> None:
        """Raise what `put` would raise, before the work is done rather than after.

        Raises:
            RunConflictError: see `put`.
            ValueError: a name leads out of the run directory.
        """
        for name in names:
            parts = Path(name).parts
            if not parts or Path(name).is_absolute() or ".." in parts or name == MANIFEST:
                raise ValueError(f"{name!r} is not a file name inside a run directory")
        if replace:
            return
        items = self.items()
        mine = items.get(key)
        if mine is not None and mine.fingerprint != fingerprint:
            raise RunConflictError(
                f"{self.path}: {key!r} is there already, made with other settings; "
                "choose another folder, or ask to replace it"
            )
        # A run that was killed half-way through an item left files without a finished line; `put` had announced them.
        own = set(mine.files if mine else ()) | set(self._manifest()["pending"].get(key, ()))
        for name in names:
            if name in own or not (self.path / name).exists():
                continue
            maker = next((repr(other) for other, item in items.items() if name in item.files), "no run we know of")
            raise RunConflictError(
                f"{self.path / name} is there already, made by {maker}; choose another folder, or ask to replace it"
            )

    def items(self) -> dict[str, Item]:
        """Return every finished item by its key, in the order they were finished."""
        return {key: Item(**value) for key, value in self._manifest()["items"].items()}

    def _manifest(self) -> dict[str, Any]:
        path = self.path / MANIFEST
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {"version": MANIFEST_VERSION, "kind": self.kind, "items": {}, "pending": {}}
        try:
            manifest = json.loads(text)
            version, kind = manifest["version"], manifest["kind"]
        except (ValueError, KeyError, TypeError) as error:
            raise ManifestError(f"{path} is damaged or not a manifest of this program; move it away") from error
        if version > MANIFEST_VERSION:
            raise ManifestError(f"{path} was written by a newer version of this program (format {version})")
        if kind != self.kind:
            raise ManifestError(f"{path} belongs to a {kind!r} run, not to {self.kind!r}; choose another folder")
        return dict(manifest)


def _flush(path: Path) -> None:
    """Ask the disk to keep a file or folder."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open folders, and needs no such step
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    """Read the process's file mask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _has_length(path: Path, length: int) -> bool:
    return path.is_file() and path.stat().st_size == length


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
