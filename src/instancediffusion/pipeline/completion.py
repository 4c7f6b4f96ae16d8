"""Scenes of a call, with all said that their captions leave open; see `scene.completion`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from instancediffusion.pipeline.requests import ImageRequest
from instancediffusion.scene import Scene
from instancediffusion.scene.completion import CaptionCompletion


def complete_requests(
    scenes: Sequence[Scene], requests: Sequence[ImageRequest], choices: Mapping[str, Any]
) -> tuple[list[Scene], list[ImageRequest]]:
    """Give every picture a scene that says all.

    Args:
        scenes: of the call.
        requests: its pictures.
        choices: see `CaptionCompletion`; empty completes nothing.

    Returns:
        The scenes to be encoded, each once, and the requests with these.
    """
    if not choices:
        return list(scenes), list(requests)
    completion = CaptionCompletion(choices)
    rows: dict[tuple[int, tuple[str, ...]], int] = {}
    told: list[Scene] = []
    completed = []
    for request in requests:
        scene = completion.complete_scene(request.scene, request.seed)
        key = (request.scene_row, tuple(instance.caption for instance in scene.instances))
        if key not in rows:
            rows[key] = len(told)
            told.append(scene)
        completed.append(replace(request, scene=told[rows[key]], scene_row=rows[key]))
    return told, completed
