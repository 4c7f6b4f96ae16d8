"""Compiled graphs of OpenVINO on disk, so that exporting and compiling are paid for once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from instancediffusion.runs import atomic_path, fingerprint, sweep

MOST = 12
"""Graphs that are kept, the last written ones: at Stable Diffusion 1.5's size each is a copy of its 8-bit weights."""


class KeptGraphs:
    """A folder of graphs: see `adapter.openvino.GraphStore`.

    Args:
        folder: need not exist.
        facts: all that graphs depend on and that their keys do not say: weights and versions.
    """

    def __init__(self, folder: Path, *facts: Any) -> None:
        self._folder, self._facts = folder, facts

    def read(self, key: str) -> tuple[dict[str, Any], Any] | None:
        """What stands beside a graph, and the graph as an array of bytes; None where it is not kept, or damaged."""
        try:
            with safe_open(self._path(key), "numpy") as file:
                stated, graph = file.metadata() or {}, file.get_tensor("graph")
            whole = stated["sha256"] == hashlib.sha256(graph.data).hexdigest()  # OpenVINO reads whatever it is given
            return (json.loads(stated["facts"]), graph) if whole else None
        except (OSError, SafetensorError, KeyError, ValueError):
            return None

    def write(self, key: str, facts: Mapping[str, Any], graph: bytes) -> None:
        """Keep a graph, and forget those that were written long ago; nothing where the folder cannot be written."""
        array = np.frombuffer(graph, dtype=np.uint8)
        stated = {"facts": json.dumps(facts), "sha256": hashlib.sha256(graph).hexdigest()}
        with suppress(OSError, SafetensorError):  # the latter where the disk is full
            sweep(self._folder)
            with atomic_path(self._path(key)) as temporary:
                save_file({"graph": array}, temporary, stated)
            by_age = sorted(self._folder.glob("[!.]*.graph"), key=lambda path: path.stat().st_mtime, reverse=True)
            for old in by_age[MOST:]:
                old.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{fingerprint(key, *self._facts)}.graph"
