"""Checks of a scene for the studio: `scene`'s own, the studio's bounds, and the words the model knows."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from instancediffusion.errors import Problem, SceneError
from instancediffusion.pipeline.familiar import unknown_words
from instancediffusion.scene import Scene, check_scene_text
from instancediffusion.studio.bounds import Limits

_INSTANCE = re.compile(r"\$\.(?:instances|annos)\[(\d+)\]")
_SHOWN = 200


@dataclass(frozen=True)
class Checked:
    """A text that was read as a scene.

    Attributes:
        scene: the scene, or None if a problem is an error.
        format: the format it was read in.
        problems: everything that is wrong or doubtful.
    """

    scene: Scene | None
    format: str
    problems: tuple[Problem, ...]

    def shown(self) -> list[dict[str, Any]]:
        """The problems as the page reads them, each with the index of the instance it concerns, or None."""
        return [
            {
                "path": problem.path,
                "message": problem.message,
                "fix": problem.fix,
                "severity": problem.severity,
                "instance": instance_of(problem.path),
            }
            for problem in self.problems[:_SHOWN]
        ]

    def settled(self) -> Scene:
        """The scene.

        Raises:
            SceneError: it has an error.
        """
        if self.scene is None:
            raise SceneError(self.problems)
        return self.scene


def check(text: str | bytes, limits: Limits, vocabulary: Collection[str] = ()) -> Checked:
    """Read a scene file's text.

    Args:
        text: native or published format.
        limits: bounds of the studio.
        vocabulary: the words the model knows; empty if it may know any.
    """
    found = check_scene_text(text)
    problems, scene = list(found.problems), found.scene
    if scene is not None:
        problems += _beyond(scene, limits)
        if any(problem.severity == "error" for problem in problems):
            scene = None
        else:
            problems += _unknown(scene, vocabulary)
    return Checked(scene, found.format, tuple(problems))


def instance_of(path: str) -> int | None:
    """The index of the instance that a JSON path stands in, or None."""
    match = _INSTANCE.match(path)
    return int(match[1]) if match else None


def _beyond(scene: Scene, limits: Limits) -> Iterator[Problem]:
    for name in ("width", "height"):
        side = getattr(scene, name)
        if not limits.min_side_px <= side <= limits.max_side_px:
            fix = f"the studio takes {limits.min_side_px}..{limits.max_side_px}"
            yield Problem(f"$.{name}", f"is {side}", fix)
    if max(scene.width, scene.height) > limits.max_aspect * min(scene.width, scene.height):
        message = f"the canvas of {scene.width} x {scene.height} is too long and narrow"
        yield Problem("$.width", message, f"one side may be {limits.max_aspect:g} times the other")
    if len(scene.instances) > limits.instances:
        yield Problem("$.instances", f"has {len(scene.instances)} items", f"the studio takes {limits.instances}")
    texts = [("$.prompt", scene.prompt), ("$.negative_prompt", scene.negative_prompt or "")]
    texts += [(f"$.instances[{index}].caption", item.caption) for index, item in enumerate(scene.instances)]
    for path, text in texts:
        if len(text) > limits.text_chars:
            yield Problem(path, f"has {len(text)} characters", f"write at most {limits.text_chars}")


def _unknown(scene: Scene, vocabulary: Collection[str]) -> Iterator[Problem]:
    if not vocabulary:
        return
    texts = [("$.prompt", scene.prompt)]
    texts += [(f"$.instances[{index}].caption", item.caption) for index, item in enumerate(scene.instances)]
    for path, text in texts:
        if words := unknown_words(text, vocabulary):
            named = ", ".join(repr(word) for word in words[:6]) + (" ..." if len(words) > 6 else "")
            yield Problem(path, f"the model has never seen {named}", "", "warning")
