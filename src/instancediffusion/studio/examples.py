"""The scenes that come with the package, as thumbnails that load on a click."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

from instancediffusion.errors import SceneError
from instancediffusion.rendering import render_overlay
from instancediffusion.scene import Scene, check_scene
from instancediffusion.scene.files import examples_folder
from instancediffusion.studio.bounds import RefusedError

_GROUPS = (("test", "Study"), ("iterative", "Step by step"), ("", "Demo"))


class Examples:
    """Example scenes.

    Args:
        folder: where the scene files lie; None means those of the package.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or examples_folder()
        self._lock = threading.Lock()
        self._scenes: dict[str, Scene] | None = None
        self._thumbnails: dict[str, bytes] = {}

    def listing(self) -> list[dict[str, Any]]:
        """Name, group, prompt and number of instances of each."""
        found = [
            {
                "name": name,
                "group": _group(name),
                "prompt": scene.prompt,
                "instances": len(scene.instances),
            }
            for name, scene in self._all().items()
        ]
        order = {"Demo": 0, "Study": 1, "Step by step": 2}
        return sorted(found, key=lambda entry: (order[entry["group"]], entry["name"] != "demo", entry["name"]))

    def scene(self, name: object) -> Scene:
        """One of them.

        Raises:
            RefusedError: there is none of that name.
        """
        found = self._all().get(name) if isinstance(name, str) else None
        if found is None:
            raise RefusedError("example: there is none of that name")
        return found

    def thumbnail(self, name: object) -> bytes:
        """A PNG of one of them, drawn on its first use.

        Raises:
            RefusedError: there is none of that name.
        """
        scene, key = self.scene(name), str(name)
        with self._lock:
            if key not in self._thumbnails:
                self._thumbnails[key] = _thumbnail(scene)
            return self._thumbnails[key]

    def _all(self) -> dict[str, Scene]:
        with self._lock:
            if self._scenes is None:
                paths = sorted(self._folder.glob("*.json")) if self._folder is not None else []
                self._scenes = {path.stem: _read(path) for path in paths}
            return self._scenes


def _read(path: Path) -> Scene:
    check = check_scene(path)
    if check.scene is None:
        raise SceneError(check.problems, str(path))
    return check.scene


def _group(name: str) -> str:
    return next(group for start, group in _GROUPS if name.startswith(start))


def _thumbnail(scene: Scene, side: int = 240) -> bytes:
    scale = side / max(scene.width, scene.height)
    size = (max(1, round(scene.height * scale)), max(1, round(scene.width * scale)))
    large = render_overlay(scene, (2 * size[0], 2 * size[1]), legend=False)
    buffer = io.BytesIO()
    large.resize((size[1], size[0])).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
