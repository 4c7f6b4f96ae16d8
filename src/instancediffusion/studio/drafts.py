"""Drafts: what a user was drawing, kept for each browser until the next visit."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from instancediffusion.runs import write_atomic
from instancediffusion.studio.bounds import RefusedError

_SESSION = re.compile(r"[A-Za-z0-9_-]{16,80}\Z")


def check_session(session: object) -> str:
    """Return the id of a browser session.

    Raises:
        RefusedError: it is not 16 to 80 letters, digits, `_` and `-`.
    """
    if not isinstance(session, str) or not _SESSION.match(session):
        raise RefusedError("session: give an id of your own, 16 to 80 letters, digits, _ or -")
    return session


class DraftStore:
    """Drafts in a folder, one file for each session, named by the hash of its id.

    Args:
        folder: where they lie; made on the first write.
        max_bytes: largest draft.
        max_drafts: most drafts kept; the oldest are removed.
    """

    def __init__(self, folder: Path, max_bytes: int, max_drafts: int) -> None:
        self._folder, self._max_bytes, self._max_drafts = folder, max_bytes, max_drafts

    def save(self, session: str, draft: str) -> int:
        """Keep a draft and return its length in bytes.

        Raises:
            RefusedError: the session's id is malformed, or the draft is too long or no JSON object.
        """
        path, data = self._path(session), draft.encode("utf-8", "surrogatepass")
        if len(data) > self._max_bytes:
            raise RefusedError(
                f"draft: it is larger than {self._max_bytes >> 20} MB; use a smaller picture for reference"
            )
        if not isinstance(_parsed(draft), dict):
            raise RefusedError("draft: it is no JSON object")
        write_atomic(path, draft)
        self._prune()
        return len(data)

    def load(self, session: str) -> str | None:
        """Return the draft of a session, or None; one that was damaged counts as none."""
        try:
            text = self._path(session).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None
        return text if isinstance(_parsed(text), dict) else None

    def _path(self, session: str) -> Path:
        return self._folder / f"{hashlib.sha256(check_session(session).encode()).hexdigest()[:32]}.json"

    def _prune(self) -> None:
        drafts = list(self._folder.glob("*.json"))
        if len(drafts) <= self._max_drafts:
            return
        drafts.sort(key=lambda path: path.stat().st_mtime_ns)
        for path in drafts[: len(drafts) - self._max_drafts]:
            path.unlink(missing_ok=True)


def _parsed(text: str) -> Any:
    try:
        text.encode("utf-8")
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
