"""What a pipeline call returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from instancediffusion.pipeline.layered_output import Layer
from instancediffusion.rendering.notebook import images_html, images_png
from instancediffusion.scene import Scene
from instancediffusion.settings import GenerationSettings


@dataclass
class GenerationOutput(BaseOutput):
    """Pictures and how they came about. Images stand scene by scene, and seed by seed within a scene.

    As of every diffusers pipeline, `output[0]` are the images, too.

    Attributes:
        images: the pictures, by `output_type`: `"pil"` a list of PIL images; `"np"` (B, H, W, 3) and `"pt"`
            (B, 3, H, W), 0 to 1, or a list of such without B if sizes differ; `"latent"` the latents. In place of a
            picture that failed, None or NaN.
        nsfw_content_detected: for each image, whether the safety checker blackened it; None without one.
        latents: (B, C, h, w) float32 on the CPU, one for each image; a list of (C, h, w) if sizes differ.
        seeds: the seed of each image; of one with a generator, what that was first seeded with.
        scenes: the scene of each image.
        settings: the settings of the run, defaults filled in.
        timings: seconds of each stage (`text`, `grounding`, `sampling`, `decoding`, `refining`, `total`).
        network_rows: network function evaluations (NFE), in batch elements: a guided image takes two for each step;
            one on a part of the canvas counts as that fraction of it.
        interrupted: the run was stopped early; the images show the model's last estimate.
        failures: by the index of an image that could not be made, why.
        layers: with `layers=True`, for each image its layers from back to front, see `pipeline.layered_output`; an
            image that failed has none.
        redrawn: of `edit`, what of the picture was drawn anew, white in a picture of mode L; else None.
    """

    images: Any
    nsfw_content_detected: list[bool] | None
    latents: Tensor | list[Tensor]
    seeds: tuple[int, ...]
    scenes: tuple[Scene, ...]
    settings: GenerationSettings
    timings: Mapping[str, float]
    network_rows: float
    interrupted: bool = False
    failures: Mapping[int, str] = field(default_factory=dict)
    layers: tuple[tuple[Layer, ...], ...] = ()
    redrawn: Image.Image | None = None

    def _repr_png_(self) -> bytes | None:
        """Show the images in a notebook, on one contact sheet; None unless they are PIL images."""
        shown = self._shown()
        return images_png([image for image, _, _ in shown], [label for _, _, label in shown])

    def _repr_html_(self) -> str | None:
        """Show the images in a notebook, each with its seed below; None unless they are PIL images."""
        shown = self._shown()
        return images_html(*map(list, zip(*shown, strict=True))) if shown else None

    def _shown(self) -> list[tuple[Image.Image, Scene, str]]:
        """The PIL images among the images, each with its scene and what is written below it."""
        images = self.images if isinstance(self.images, list) else []
        rows = zip(images, self.scenes, self.seeds, strict=False)
        return [(image, scene, f"seed {seed}") for image, scene, seed in rows if isinstance(image, Image.Image)]
