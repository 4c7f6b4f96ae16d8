"""Run directories: what a run wrote, and whether it may be skipped when the run is started again.

Two promises. A file that can be seen is whole: it is written under another name in the same folder, flushed to the
disk and renamed, so a run that is killed leaves whole files and, at worst, a stray temporary one. And nothing is
overwritten in silence: an item is skipped when its fingerprint (a hash of everything it depends on) and its files are
what the manifest says, and replacing something different is a decision the caller states.

What is finished is kept in an SQLite database (`manifest.sqlite3`): an item costs the same in a folder of ten and of
ten thousand, and any number of processes may write at a time. `manifest.json` is derived from it, for people and
other programs. A folder that has a `manifest.json` alone, as earlier versions wrote it, is read and continued.

A folder that mirrors one of a store (`stores`) keeps its items there, files and all, and nothing here: an object for
each item as soon as it is done, and one for all of a process when it settles.
"""

import hashlib
import json
import os
import platform
import sqlite3
import stat
import sys
import tempfile
import time
import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Any

from .errors import SettingsError
from .stored_items import StoredItems
from .stores import Store, keep, mirrored

MANIFEST = "manifest.json"
DATABASE = "manifest.sqlite3"
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
    prefix = f".{target.stem[:40]}-{_writer()}-"  # who writes it, so that others leave it alone
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=_TEMPORARY + target.suffix, dir=target.parent)
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
        ValueError: the value holds NaN or infinity, which JSON cannot express.
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
    """A folder of results that knows how each was made.

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
        store = mirrored(self.path)
        self._records = _Records(self.path, kind) if store is None else _StoredRecords(store, kind)
        # A caller that forgets to call `settle` still leaves a manifest.json of everything when the process ends.
        weakref.finalize(self, self._records.close)

    def state(self, key: str, fingerprint: str) -> ItemState:
        """Tell whether the item `key` has to be computed, given the fingerprint it would have now."""
        item = self._records.get(key)
        if item is None:
            return ItemState.MISSING
        if item.fingerprint != fingerprint:
            return ItemState.DIFFERENT
        return ItemState.COMPLETE if self.is_whole(item) else ItemState.DAMAGED

    def is_whole(self, item: Item) -> bool:
        """Tell whether the files of an item of this directory are there, as long as they were written."""
        return all(self._length(name) == facts["bytes"] for name, facts in item.files.items())

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
            replace: allow what is there from other settings, or of unknown origin, to be overwritten.

        Raises:
            RunConflictError: the item exists with another fingerprint, or one of the files exists and belongs to
                another item or to no run at all; nothing is written.
            ValueError: the record holds NaN or infinity, which JSON cannot express.
        """
        self.check(key, fingerprint, list(files), replace=replace)
        stored = self._records.store if isinstance(self._records, _StoredRecords) else None
        if not self._swept and stored is None:  # what a killed run left half written
            sweep(self.path)
            self._swept = True
        kept = dict(record or {})
        _json_text(kept)  # before anything is written
        self._records.announce(key, list(files))
        entries = {}
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            if stored is None:
                write_atomic(self.path / name, data)
            else:
                stored.write(name, data)
                (self.path / name).unlink(missing_ok=True)  # an older one that was read
            entries[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        item = Item(fingerprint, entries, kept, _now())
        self._records.put(key, item)
        return item

    def check(self, key: str, fingerprint: str, names: Sequence[str], *, replace: bool = False) -> None:
        """Raise what `put` would raise, before the work is done rather than after.

        Raises:
            RunConflictError: see `put`.
            ValueError: a name leads out of the run directory.
        """
        for name in names:
            parts = Path(name).parts
            inside = parts and not Path(name).is_absolute() and ".." not in parts
            if not inside or name in (MANIFEST, DATABASE):
                raise ValueError(f"{name!r} is not a file name inside a run directory")
        if replace:
            return
        mine = self._records.get(key)
        if mine is not None and mine.fingerprint != fingerprint:
            raise RunConflictError(
                f"{self.path}: {key!r} is there already, made with other settings; "
                "choose another folder, or ask to replace it"
            )
        # A run that was killed half-way through an item left files without a finished line; `put` had announced them.
        there = [name for name in names if not (mine and name in mine.files) and self._length(name) is not None]
        own = self._records.announced(key) if there else set()
        for name in (name for name in there if name not in own):
            maker = next((repr(other) for other, item in self.items().items() if name in item.files), None)
            raise RunConflictError(
                f"{self.path / name} is there already, made by {maker or 'no run we know of'}; "
                "choose another folder, or ask to replace it"
            )

    def item(self, key: str) -> Item | None:
        """Return one finished item, or None."""
        return self._records.get(key)

    def items(self) -> dict[str, Item]:
        """Return every finished item by its key, in the order they were finished."""
        return self._records.all()

    def whole(self) -> dict[str, str]:
        """Key -> what is known of the files of an item, for those whose files are there as long as they were written.

        Cheaper than `items` where there are thousands, whose records are not read.
        """
        found = {}
        for key, text in self._records.files().items():
            files = json.loads(text)
            if all(self._length(name) == facts["bytes"] for name, facts in files.items()):
                found[key] = text
        return found

    def local(self, name: str) -> Path:
        """Return the path of an item's file that can be opened; of a mirrored folder it is brought here first."""
        path = self.path / name
        if isinstance(self._records, _StoredRecords) and not path.exists():
            return keep(path, self._records.store.read([name])[name], fetched=True)
        return path

    def _length(self, name: str) -> int | None:
        """Bytes of a file, None if it is not there."""
        if isinstance(self._records, _StoredRecords):
            return self._records.sizes.get(name)
        try:
            facts = os.stat(os.path.join(self.path, name))
        except (OSError, ValueError):
            return None
        return facts.st_size if stat.S_ISREG(facts.st_mode) else 0

    def settle(self) -> None:
        """Bring `manifest.json` up to date; also done now and then while items are put, and when the process ends."""
        self._records.settle()


def run_stamp(path: str | os.PathLike[str]) -> tuple[tuple[int, int], ...]:
    """Return what changes whenever an item is put into a run directory; cheap, for caches of its items."""
    files = (Path(path) / DATABASE, Path(path) / MANIFEST)
    facts = (file.stat() for file in files if file.is_file())
    return tuple((fact.st_mtime_ns, fact.st_size) for fact in facts)


class _Records:
    """The items of a run directory, in a database; of a folder of an earlier version, in its `manifest.json`.

    Reading writes nothing. The first write makes the database, and takes over what a `manifest.json` holds.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self._database, self._manifest, self._kind = folder / DATABASE, folder / MANIFEST, kind
        self._connection: sqlite3.Connection | None = None
        self._unsettled = 0
        self._old: dict[str, Item] = {}
        self._old_pending: dict[str, list[str]] = {}
        with self._reading() as database:  # refuses a folder of another kind or version
            if database is None:
                self._old, self._old_pending = self._read_manifest()

    def get(self, key: str) -> Item | None:
        """One item, or None."""
        with self._reading() as database:
            if database is None:
                return self._old.get(key)
            row = database.execute(f"SELECT {_COLUMNS} FROM items WHERE key = ?", (key,)).fetchone()
            return None if row is None else _item(*row)

    def all(self) -> dict[str, Item]:
        """Every item, in the order in which they were first finished."""
        with self._reading() as database:
            if database is None:
                return dict(self._old)
            rows = database.execute(f"SELECT key, {_COLUMNS} FROM items ORDER BY number")
            return {key: _item(*row) for key, *row in rows}

    def files(self) -> dict[str, str]:
        """The JSON of the files of every item."""
        with self._reading() as database:
            if database is None:
                return {key: _json_text(item.files) for key, item in self._old.items()}
            return dict(database.execute("SELECT key, files FROM items"))

    def announced(self, key: str) -> set[str]:
        """The files of an item that was begun and not finished."""
        with self._reading() as database:
            if database is None:
                return set(self._old_pending.get(key, ()))
            return {name for (name,) in database.execute("SELECT name FROM pending WHERE key = ?", (key,))}

    def announce(self, key: str, names: Sequence[str]) -> None:
        """Note which files are about to be written."""
        with self._writing() as database:
            database.executemany("INSERT OR IGNORE INTO pending VALUES (?, ?)", [(key, name) for name in names])

    def put(self, key: str, item: Item) -> None:
        """Note that an item is finished."""
        row = (key, item.fingerprint, _json_text(item.files), _json_text(item.record), item.finished)
        with self._writing() as database:
            database.execute("DELETE FROM pending WHERE key = ?", (key,))
            database.execute(
                f"INSERT INTO items (key, {_COLUMNS}) VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
                "fingerprint = excluded.fingerprint, files = excluded.files, record = excluded.record, "
                "finished = excluded.finished",
                row,
            )
            database.execute("UPDATE facts SET value = value + 1 WHERE name = 'changes'")
            (count,) = database.execute("SELECT count(*) FROM items").fetchone()
        self._unsettled += 1
        # Written anew each time the folder has grown by a tenth, deriving the file costs a constant for each item.
        if 10 * self._unsettled > count:
            self.settle()

    def settle(self) -> None:
        """Derive `manifest.json`, if there is anything new."""
        with self._reading() as database:  # also what another process put without deriving it
            if database is None or (self._manifest.is_file() and not self._is_stale(database)):
                return
        # Inside a transaction, so that the last of two writers derives what the other put, too.
        with self._writing() as database:
            self._derive(database)
        self._unsettled = 0

    def close(self) -> None:
        """Settle and let go of the database."""
        try:
            if self._manifest.parent.is_dir():  # else the folder was deleted meanwhile
                self.settle()
        except (OSError, sqlite3.Error):
            pass  # the process is ending; the database holds everything
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _derive(self, database: sqlite3.Connection) -> None:
        rows = database.execute(f"SELECT key, {_COLUMNS} FROM items ORDER BY number")
        lines = [
            f'    {_json_text(key)}: {{"fingerprint": {_json_text(mark)}, "files": {files},\n'
            f'      "record": {record}, "finished": {_json_text(finished)}}}'
            for key, mark, files, record, finished in rows
        ]
        head = f'{{\n  "version": {MANIFEST_VERSION},\n  "kind": {_json_text(self._kind)},\n  "pending": {{}},\n'
        write_atomic(self._manifest, head + '  "items": {\n' + ",\n".join(lines) + "\n  }\n}\n")
        database.execute("INSERT OR REPLACE INTO facts VALUES ('manifest', ?)", (self._manifest_stamp(),))
        database.execute(
            "UPDATE facts SET value = (SELECT value FROM facts WHERE name = 'changes') WHERE name = 'derived'"
        )

    @staticmethod
    def _is_stale(database: sqlite3.Connection) -> bool:
        """Whether items were put since `manifest.json` was derived."""
        facts = dict(database.execute("SELECT name, value FROM facts"))
        return bool(facts.get("changes") != facts.get("derived"))

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """Give the database, or None while there is none; its errors become `ManifestError`."""
        try:
            if self._connection is None and self._database.is_file():
                database = self._connect()
                if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'pending'").fetchone() is None:
                    database.close()  # another process is about to fill it
                else:
                    self._check(database)
                    self._connection = database
            yield self._connection
        except sqlite3.Error as error:
            raise ManifestError(f"{self._database} cannot be read ({error}); move it away") from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Give the database in a transaction that is the only one; it is made if need be."""
        try:
            if self._connection is None:
                self._database.parent.mkdir(parents=True, exist_ok=True)
                self._connection = self._connect()
            database = self._connection
            database.execute("BEGIN IMMEDIATE")
            try:
                self._make_tables(database)
                self._take_over(database)
                yield database
            except BaseException:
                database.rollback()
                raise
            database.commit()
        except sqlite3.Error as error:
            raise ManifestError(f"{self._database} cannot be written ({error})") from error

    def _connect(self) -> sqlite3.Connection:
        # Threads may hand a run directory on; `timeout` is how long one writer waits for another.
        return sqlite3.connect(self._database, timeout=60, isolation_level=None, check_same_thread=False)

    def _make_tables(self, database: sqlite3.Connection) -> None:
        if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'pending'").fetchone() is None:
            for statement in _TABLES:
                database.execute(statement)
            facts = [("version", str(MANIFEST_VERSION)), ("kind", self._kind), ("changes", "0"), ("derived", "0")]
            database.executemany("INSERT INTO facts VALUES (?, ?)", facts)

    def _check(self, database: sqlite3.Connection) -> None:
        facts = dict(database.execute("SELECT name, value FROM facts"))
        _check_head(self._database, int(facts["version"]), facts["kind"], self._kind)

    def _take_over(self, database: sqlite3.Connection) -> None:
        """Take items from a `manifest.json` that this database did not write: of an earlier version, or a copy."""
        stamp = self._manifest_stamp()
        recorded = database.execute("SELECT value FROM facts WHERE name = 'manifest'").fetchone()
        if not stamp or (recorded is not None and recorded[0] == stamp):
            return
        try:
            items, pending = self._read_manifest()
        except ManifestError:
            if recorded is None:
                raise
            return  # it was ours; it will be derived anew
        rows = [
            (key, item.fingerprint, _json_text(item.files), _json_text(item.record), item.finished)
            for key, item in items.items()
        ]
        announced = [(key, name) for key, names in pending.items() for name in names]
        database.executemany("INSERT OR IGNORE INTO pending VALUES (?, ?)", announced)
        database.executemany(f"INSERT OR IGNORE INTO items (key, {_COLUMNS}) VALUES (?, ?, ?, ?, ?)", rows)
        database.execute("INSERT OR REPLACE INTO facts VALUES ('manifest', ?)", (stamp,))

    def _manifest_stamp(self) -> str:
        try:
            facts = self._manifest.stat()
        except FileNotFoundError:
            return ""
        return f"{facts.st_mtime_ns} {facts.st_size}"

    def _read_manifest(self) -> tuple[dict[str, Item], dict[str, list[str]]]:
        """Finished items, and the files of those that were begun."""
        try:
            text = self._manifest.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}, {}
        try:
            manifest = json.loads(text)
            _check_head(self._manifest, manifest["version"], manifest["kind"], self._kind)
            return {key: Item(**value) for key, value in manifest["items"].items()}, dict(manifest.get("pending", {}))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ManifestError(
                f"{self._manifest} is damaged or not a manifest of this program; move it away"
            ) from error


class _StoredRecords:
    """The items of a run directory that mirrors a folder of a store, as `_Records` has them."""

    def __init__(self, store: Store, kind: str) -> None:
        self.store, self._kind = store, kind
        self._stored = StoredItems(store, kind)
        self.sizes = self._stored.sizes

    def get(self, key: str) -> Item | None:
        """One item, or None."""
        found = self._stored.get(key)
        return None if found is None else Item(**found)

    def all(self) -> dict[str, Item]:
        """Every item."""
        return {key: Item(**found) for key, found in self._stored.all().items()}

    def files(self) -> dict[str, str]:
        """The JSON of the files of every item."""
        return {key: _json_text(found["files"]) for key, found in self._stored.all().items()}

    def announced(self, key: str) -> set[str]:
        """The files of an item that was begun and not finished."""
        return self._stored.announced(key)

    def announce(self, key: str, names: Sequence[str]) -> None:
        """Note which files are about to be written."""
        self._stored.announce(key, names)

    def put(self, key: str, item: Item) -> None:
        """Note that an item is finished."""
        self._stored.put(key, asdict(item))

    def settle(self) -> None:
        """Join what was put, and derive `manifest.json`."""
        if self._stored.settle():
            head = {"version": MANIFEST_VERSION, "kind": self._kind, "pending": {}}
            text = json.dumps(head | {"items": self._stored.all()}, ensure_ascii=False, allow_nan=False)
            self.store.write(MANIFEST, text.encode())

    def close(self) -> None:
        """Settle, if the store is there to be written."""
        try:
            self.settle()
        except SettingsError:
            pass  # every item is an object of its own


_COLUMNS = "fingerprint, files, record, finished"
_TABLES = (
    "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS items (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, "
    "fingerprint TEXT NOT NULL, files TEXT NOT NULL, record TEXT NOT NULL, finished TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS pending (key TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (key, name))",
)


def _check_head(path: Path, version: int, kind: str, wanted: str) -> None:
    if version > MANIFEST_VERSION:
        raise ManifestError(f"{path} was written by a newer version of this program (format {version})")
    if kind != wanted:
        raise ManifestError(f"{path} belongs to a {kind!r} run, not to {wanted!r}; choose another folder")


def _item(mark: str, files: str, record: str, finished: str) -> Item:
    return Item(mark, json.loads(files), json.loads(record), finished)


def _json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


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


def _writer() -> str:
    """Name this process among all that may write to a shared folder."""
    return f"{os.getpid()}x{zlib.crc32(platform.node().encode()):08x}"


def sweep(folder: Path) -> None:
    """Remove the temporary files that writers who were killed left in a folder and those below it."""
    for litter in folder.rglob(f".*{_TEMPORARY}*"):
        if _is_litter(litter):
            litter.unlink(missing_ok=True)


def _is_litter(path: Path) -> bool:
    """Whether a temporary file was left by a process of this machine that is gone, or is a day old."""
    try:
        age = time.time() - path.stat().st_mtime
    except OSError:
        return False
    writer = path.name.rpartition(_TEMPORARY)[0].split("-")[-2:][0]
    pid, _, machine = writer.partition("x")
    # On Windows, asking after a process could end it.
    if os.name != "nt" and pid.isdigit() and machine == _writer().partition("x")[2]:
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):  # it belongs to another user, or is no number of a process
            pass
    return age > 24 * 3600


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
