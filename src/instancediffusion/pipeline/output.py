"""What a pipeline call returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from instancediffusion.pipeline.settings import GenerationSettings
from instancediffusion.scene import Scene


@dataclass(frozen=True)
class GenerationOutput:
    """Pictures and how they came about. Images stand scene by scene, and seed by seed within a scene.

    Attributes:
        images: the pictures; empty if none were asked for.
        latents: (B, C, h, w) float32 on the CPU, one row for each image; a list of (C, h, w) if sizes differ.
        seeds: the seed of each image.
        scenes: the scene of each image.
        drawn: for each image, the scene it was drawn from: its own, completed if the model is one that asks for it
            (`GenerationSettings.complete_captions`, `GenerationSettings.place_objects`).
        settings: the settings of the run, defaults filled in.
        timings: seconds of each stage (`text`, `grounding`, `sampling`, `decoding`, `refining`, `total`).
        network_rows: rows the UNet computed (an image, guided, costs two for each step; a row on part of
            the canvas counts as the share it is of it).
        interrupted: the run was stopped early; the images show the model's last estimate.
    """

    images: list[Image.Image]
    latents: Tensor | list[Tensor]
    seeds: tuple[int, ...]
    scenes: tuple[Scene, ...]
    drawn: tuple[Scene, ...]
    settings: GenerationSettings
    timings: Mapping[str, float]
    network_rows: float
    interrupted: bool = False

    @property
    def captions(self) -> tuple[tuple[str, ...], ...]:
        """For each image, the captions its instances were drawn from."""
        return tuple(tuple(instance.caption for instance in scene.instances) for scene in self.drawn)
