"""Scenes of a call, with all said that they leave open; see `scene.completion` and `scene.arranging`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from instancediffusion.pipeline.loading import arrangement_words
from instancediffusion.pipeline.requests import ImageRequest
from instancediffusion.scene import Arrangement, Scene
from instancediffusion.scene.completion import CaptionCompletion


def complete_requests(
    requests: Sequence[ImageRequest],
    choices: Mapping[str, Any],
    objects: Mapping[str, Any],
) -> tuple[list[Scene], list[ImageRequest]]:
    """Give every picture a scene that says all.

    Args:
        requests: the pictures of a call.
        choices: see `CaptionCompletion`; empty completes nothing.
        objects: see `arrangement_words`; empty places nothing.

    Returns:
        The scenes to be encoded, each once, and the requests with these.
    """
    completion = CaptionCompletion(choices)
    arrangement = Arrangement(*arrangement_words(objects))
    rows: dict[tuple[int, tuple[str, ...], int | None], int] = {}
    told: list[Scene] = []
    completed = []
    for request in requests:
        scene = completion.complete_scene(arrangement.arrange(request.scene, request.seed), request.seed)
        arranged = request.seed if scene.instances and not request.scene.instances else None
        key = (request.scene_row, tuple(instance.caption for instance in scene.instances), arranged)
        if key not in rows:
            rows[key] = len(told)
            told.append(scene)
        completed.append(replace(request, scene=told[rows[key]], scene_row=rows[key]))
    return told, completed
