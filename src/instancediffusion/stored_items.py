"""The items of a run directory that lies in a store, which knows no databases and no appending.

`.run/KIND/items/HASH.json` is an item, written once its files are there; a process that settles joins its own to one
object of `.run/KIND/log/`. Writers share no object, so none of them can lose what another wrote, and a run of ten
thousand items is read with a few requests.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import SettingsError
from .stores import Store

_HOME = ".run/"


class StoredItems:
    """Items by their key, each a JSON-like mapping with the time at which it was `finished`.

    Args:
        folder: the run directory.
        kind: what sort of run it is.

    Raises:
        SettingsError: the folder belongs to another kind of run, or what is there cannot be read.
    """

    def __init__(self, folder: Store, kind: str) -> None:
        self.folder, self._home = folder, f"{_HOME}{kind}/"
        self.sizes = folder.sizes()
        parts = [name for name in self.sizes if name.startswith(_HOME)]
        if strange := sorted({name.split("/")[1] for name in parts} - {kind}):
            raise SettingsError(
                f"{folder.url}: belongs to a {strange[0]!r} run, not to {kind!r}; choose another folder"
            )
        self._items: dict[str, dict[str, Any]] = {}
        self._begun: dict[str, list[str]] = {}
        self._own: dict[str, str] = {}
        # Logs by their time, then what was put since: of two items that finished in one second the later one counts.
        order = sorted(parts, key=lambda name: (name.startswith(f"{self._home}items/"), name))
        contents = folder.read(order)
        for content in (contents[name] for name in order):
            try:
                self._take(json.loads(content))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise SettingsError(f"{folder.url}/{_HOME}: holds no items ({error})") from error

    def _take(self, data: Mapping[str, Any]) -> None:
        """Add what an object holds; of two items of one key the later one counts."""
        for key, names in data.get("begun", {}).items():
            self._begun[key] = list(names)
        for key, item in data.get("items", {}).items():
            if key not in self._items or self._items[key]["finished"] <= item["finished"]:
                self._items[key] = dict(item)

    def get(self, key: str) -> dict[str, Any] | None:
        """One item."""
        return self._items.get(key)

    def all(self) -> dict[str, dict[str, Any]]:
        """All that were there when this was opened, and those put since, in the order in which they were finished."""
        return dict(sorted(self._items.items(), key=lambda pair: str(pair[1]["finished"])))

    def announced(self, key: str) -> set[str]:
        """The files of an item that was begun and not finished."""
        return set(self._begun.get(key, ()))

    def announce(self, key: str, names: Sequence[str]) -> None:
        """Note which files are about to be written."""
        self._begun[key] = list(names)
        self._put(key, {"begun": {key: list(names)}})

    def put(self, key: str, item: Mapping[str, Any]) -> None:
        """Note that an item is finished; its files are there."""
        self._items[key] = dict(item)
        self._begun.pop(key, None)
        self._put(key, {"items": {key: dict(item)}})
        self.sizes |= {name: int(facts["bytes"]) for name, facts in item["files"].items()}

    def _put(self, key: str, data: Mapping[str, Any]) -> None:
        name = f"{self._home}items/{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
        self.folder.write(name, json.dumps(data, ensure_ascii=False, allow_nan=False).encode())
        self._own[key] = name

    def settle(self) -> bool:
        """Join what was put since; returns whether there was anything."""
        done = {key: name for key, name in self._own.items() if key not in self._begun}
        if not done:
            return False
        items = {key: self._items[key] for key in done}
        log = f"{self._home}log/{time.time_ns():020d}-{uuid.uuid4().hex}.json"
        self.folder.write(log, json.dumps({"items": items}, ensure_ascii=False, allow_nan=False).encode())
        self.folder.remove(done.values())
        self._own = {key: name for key, name in self._own.items() if key not in done}
        return True
