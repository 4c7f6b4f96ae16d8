"""Folders that lie elsewhere: any store that fsspec can open, such as `s3://bucket/run`; nothing else knows fsspec.

What a command reads from a store is copied to a temporary folder first. What it writes goes the other way: a folder of
the store is mirrored by an empty one here. Run directories in it keep their items in the store, each as soon as it is
done (see `runs`); every other file is sent when the command ends.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import SettingsError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+://")
_SENDING = ".sending"
"""In a folder of a store: the names of files some of which may have been sent, some not."""
_WHOLE = {"memory", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "hf"}
"""Protocols whose files appear whole or not at all; on the others they are written under another name first."""


def is_url(text: str) -> bool:
    """Whether a text names something in a store rather than a path."""
    return _URL.match(text) is not None


@dataclass(frozen=True)
class Store:
    """A folder of a store; names are relative to it, with `/`.

    Attributes:
        url: where it is.
    """

    url: str

    def sizes(self) -> dict[str, int]:
        """Every file below the folder, and its bytes.

        Raises:
            SettingsError: the store cannot be reached, or no library for it is installed.
        """
        system, root = self._opened()
        try:
            system.invalidate_cache()
            found = system.find(root, detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise self._refusal(error) from error
        start = f"{root.strip('/')}/".lstrip("/")
        named = {path.lstrip("/"): int(facts.get("size") or 0) for path, facts in found.items()}
        return {path.removeprefix(start): size for path, size in named.items() if path.startswith(start)}

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """The contents of files.

        Raises:
            SettingsError: one of them cannot be read.
        """
        system, root = self._opened()
        paths = {f"{root}/{name}": name for name in names}
        if not paths:
            return {}
        try:
            found = system.cat(list(paths))
        except Exception as error:
            raise self._refusal(error) from error
        found = found if isinstance(found, Mapping) else dict.fromkeys(paths, found)
        bare = {path.lstrip("/"): name for path, name in paths.items()}
        return {bare[path.lstrip("/")]: content for path, content in found.items()}

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all.

        Raises:
            SettingsError: it cannot be written.
        """
        system, root = self._opened()
        path = f"{root}/{name}"
        protocols = {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)
        try:
            if protocols & _WHOLE:
                system.pipe_file(path, content)
                return
            folder, _, last = path.rpartition("/")
            system.makedirs(folder, exist_ok=True)
            with tempfile.NamedTemporaryFile() as unique:  # a name that no other writer has
                partial = f"{folder}/.{last}-{Path(unique.name).name}.partial"
            system.pipe_file(partial, content)
            system.mv(partial, path)
        except Exception as error:
            raise self._refusal(error) from error

    def remove(self, names: Iterable[str]) -> None:
        """Delete files that are there."""
        system, root = self._opened()
        paths = [f"{root}/{name}" for name in names]
        try:
            if paths:
                system.rm(paths)
        except FileNotFoundError:
            pass
        except Exception as error:
            raise self._refusal(error) from error

    def _opened(self) -> tuple[Any, str]:
        try:
            import fsspec

            system, root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise self._refusal(error) from error
        return system, str(root).rstrip("/")

    def _refusal(self, error: Exception) -> SettingsError:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return SettingsError(f"{self.url}: the store cannot be used ({reason})")


@dataclass(eq=False)
class Mirror:
    """A folder of a store that is written, and what stands for it here.

    Folders beside it whose names begin like its own (`NAME.making`) belong to it.

    Attributes:
        url: the folder of the store.
        folder: what stands for it here; there when something is in it.
        pull: whether it is a folder that is replaced as a whole.
    """

    url: str
    folder: Path
    pull: bool = False
    _kept: dict[str, tuple[int, int] | None] = field(default_factory=dict)

    @classmethod
    def open(cls, url: str, *, pull: bool = False) -> Mirror:
        """Mirror a folder of a store from now on.

        Args:
            url: the folder.
            pull: bring what is in it, for commands that look at what an earlier run left and replace it as a whole.
                What was left by one that was stopped while it sent its files is not brought, and replaced.

        Raises:
            SettingsError: the store cannot be used, or the address names no folder in it.
        """
        above, name = _parted(url)
        if not name or (above.endswith("://") and above != "memory://"):
            raise SettingsError(f"{url}: name a folder in the store, such as {url.rstrip('/')}/run")
        store = Store(url.rstrip("/"))
        sizes = store.sizes()  # also shows at once whether the store can be used
        folder = Path(tempfile.mkdtemp(prefix="instancediffusion-")).resolve() / name
        mirror = cls(store.url, folder, pull)
        _MIRRORS[folder.parent] = _NAMES[folder.parent] = above
        if pull and _SENDING in sizes:
            names = json.loads(store.read([_SENDING])[_SENDING])
            mirror._kept = {name: None for name in names if name in sizes}
        elif pull:
            for part in sorted(sizes, key=lambda one: one == "manifest.json"):  # what lists the others comes last
                keep(_inside(folder, part, url), store.read([part])[part])
                mirror._kept[part] = _facts(folder / part)
        return mirror

    def push(self) -> None:
        """Send every file that was written here since; those whose name, or a folder's, begins with a dot stay."""
        above = self.folder.parent
        store, home = Store(_MIRRORS[above]), Store(self.url)
        found = (Path(root, name) for root, folders, names in os.walk(above) for name in _shown(names, folders))
        new = [path for path in found if path not in _FETCHED and self._kept.get(self._own(path)) != _facts(path)]
        own = {self._own(path) for path in new} - {""}
        # Without the folder nothing was written, and what was sent in part stays as it is.
        gone = [name for name in self._kept if self.folder.exists() and not (self.folder / name).exists()]
        marked = self.pull and bool(own or gone)
        if marked:
            home.write(_SENDING, json.dumps(sorted(own | self._kept.keys())).encode())
        # What lists other files comes after them: `instances.json` after its pictures, a manifest after all.
        for path in sorted(new, key=lambda one: (one.name == "manifest.json", -len(one.parts), one)):
            store.write(path.relative_to(above).as_posix(), path.read_bytes())
        home.remove([*gone, *([_SENDING] if marked else [])])
        self._kept = {name: facts for name, facts in self._kept.items() if name not in gone}
        self._kept |= {self._own(path): _facts(path) for path in new if self._own(path)}

    def _own(self, path: Path) -> str:
        """The name of a file in the folder; empty for one beside it."""
        return path.relative_to(self.folder).as_posix() if self.folder in path.parents else ""

    def close(self) -> None:
        """Send what is left, and remove what stands here."""
        try:
            self.push()
        finally:
            shutil.rmtree(self.folder.parent, ignore_errors=True)
            _MIRRORS.pop(self.folder.parent, None)
            _FETCHED.difference_update([path for path in _FETCHED if self.folder.parent in path.parents])


_MIRRORS: dict[Path, str] = {}
"""The folder above each mirror -> the address above what it mirrors."""
_NAMES: dict[Path, str] = {}
"""The same of every mirror and temporary copy that there ever was in this process."""
_FETCHED: set[Path] = set()
"""Files of mirrors that are in the store as they are here."""


def mirrored(path: Path) -> Store | None:
    """What a folder mirrors; None for one that is just here."""
    whole = path.resolve() if _MIRRORS else path
    for above, url in _MIRRORS.items():
        if above in whole.parents:
            return Store((url if url.endswith("/") else f"{url}/") + whole.relative_to(above).as_posix())
    return None


def keep(path: Path, content: bytes, *, fetched: bool = False) -> Path:
    """Write what came from a store into a mirror; if `fetched` it is not sent back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if fetched:
        _FETCHED.add(path)
    return path


def told(text: str) -> str:
    """A text for people: mirrors and copies go by the names of what they stand for, also when they are gone again."""
    for above, url in _NAMES.items():
        text = text.replace(f"{above}/", url if url.endswith("/") else f"{url}/")
    return text


def local_copy(url: str, folder: Path) -> Path:
    """Copy a file, or a folder with all below it, out of a store.

    Args:
        url: what to read.
        folder: where the copy goes.

    Raises:
        SettingsError: there is nothing, or the store cannot be used.
    """
    above, name = _parted(url)
    source = Store(url.rstrip("/"))
    parts = source.sizes()
    if set(parts) - {""}:
        for part in parts:
            keep(_inside(folder / name, part, url), source.read([part])[part])
        return folder / name
    return keep(folder / name, Store(above).read([name])[name])


def temporary_copy(url: str) -> tuple[Path, Path]:
    """Copy a file or folder out of a store, see `local_copy`; returns the copy, and the new folder that it is in."""
    folder = Path(tempfile.mkdtemp(prefix="instancediffusion-")).resolve()
    _NAMES[folder] = _parted(url)[0]
    try:
        return local_copy(url, folder), folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _parted(url: str) -> tuple[str, str]:
    """An address as what is above its last name, and that name."""
    above, _, name = url.rstrip("/").rpartition("/")
    return (f"{above}/" if above.endswith(":/") else above), name


def _inside(folder: Path, name: str, url: str) -> Path:
    if ".." in name.split("/"):
        raise SettingsError(f"{url}: holds {name!r}, a name that leads out of the folder")
    return folder / name


def _shown(names: list[str], folders: list[str]) -> list[str]:
    """Files that are no secret, of a folder whose secret folders are not gone into."""
    folders[:] = [name for name in folders if not name.startswith(".")]
    return [name for name in names if not name.startswith(".")]


def _facts(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns
