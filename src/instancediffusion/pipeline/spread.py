"""Pictures made on many machines, written by this process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from instancediffusion.errors import PicturesError
from instancediffusion.ray_pool import RayOptions, ray_map

from .output import GenerationOutput
from .picture_folder import Call, Make, Picture, PictureFolder, batches, draw_call

How = TypeVar("How")


def generate_spread(
    open_: Callable[[], Callable[[How], Make]],
    jobs: Sequence[tuple[PictureFolder, How, Sequence[Picture]]],
    *,
    options: RayOptions,
    batch_size: int,
    record: Mapping[str, Any],
    written: Callable[[Path], None],
    cut: Callable[[Sequence[Picture], int], Iterator[Call]] = batches,
) -> list[list[tuple[Picture, Exception]]]:
    """Make pictures on a Ray cluster as `generate_pictures` does here: the same pictures, but for rounding.

    Args:
        open_: loads the model on a machine; returns what makes, given how, what `cut` cuts.
        jobs: folders, how their pictures are made (settings, say), and what is to be made.
        options: the cluster.
        batch_size: most pictures in one pipeline call.
        record: more to keep in the manifest.
        written: called with the path of each picture.
        cut: cuts pictures into calls.

    Returns:
        For each job the pictures that could not be made, each with its reason.
    """
    items = [(k, how, call) for k, (_, how, todo) in enumerate(jobs) for call in cut(todo, batch_size)]
    failed: list[list[tuple[Picture, Exception]]] = [[] for _ in jobs]
    try:
        calls = [(how, call) for _, how, call in items]
        for index, results in ray_map(open_, _draw, calls, options):
            job, _, (_, _, order) = items[index]
            for number, result, row in results:
                if isinstance(result, str):
                    failed[job].append((order[number], PicturesError(result)))
                else:
                    written(jobs[job][0].put(order[number], result, row, record))
    finally:
        for folder, _, _ in jobs:
            folder.run.settle()
    return failed


def _draw(maker: Callable[[How], Make], item: tuple[How, Call]) -> list[tuple[int, GenerationOutput | str, int]]:
    """Make the pictures of a call: index in it, output or why there is none, row of the output."""
    how, call = item
    index_of = {id(picture): number for number, picture in enumerate(call[2])}
    found: list[tuple[int, GenerationOutput | str, int]] = []
    for picture, result, row in draw_call(maker(how), call):
        if isinstance(result, Exception):
            found.append((index_of[id(picture)], str(result).strip() or type(result).__name__, row))
        else:  # latents are not written
            found.append((index_of[id(picture)], dataclasses.replace(result, latents=torch.empty(0)), row))
    return found
