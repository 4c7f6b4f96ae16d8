"""The refiner cascade: an image-to-image pipeline goes over each finished picture."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from PIL import Image

from instancediffusion.errors import ModelError
from instancediffusion.settings import GenerationSettings

SDXL_REFINER = "stabilityai/stable-diffusion-xl-refiner-1.0"
"""The refiner the published demo uses."""

_NEEDED = ("prompt", "image", "strength")


def load_refiner(name: str = SDXL_REFINER, **options: Any) -> Any:
    """Load any diffusers image-to-image pipeline.

    Args:
        name: hub id or folder.
        options: arguments of `AutoPipelineForImage2Image.from_pretrained`, such as `torch_dtype`.

    Raises:
        ModelError: it cannot be found or loaded.
    """
    from diffusers import AutoPipelineForImage2Image

    try:
        pipeline = AutoPipelineForImage2Image.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"refiner: {name} cannot be loaded ({reason}); give a folder or a hub id") from error
    check_refiner(pipeline)
    return pipeline


def check_refiner(pipeline: Any) -> None:
    """Raise `ModelError` unless the pipeline takes a prompt, an image and a strength."""
    accepted = inspect.signature(pipeline.__call__).parameters
    missing = [name for name in _NEEDED if name not in accepted]
    if missing:
        raise ModelError(f"refiner: {type(pipeline).__name__} takes no {missing[0]!r}; use an image-to-image pipeline")


def refine(
    pipeline: Any, image: Image.Image, prompt: str, negative_prompt: str, seed: int, settings: GenerationSettings
) -> Image.Image:
    """Go over a picture.

    It is resized to about the number of pixels the refiner was trained on, keeping its shape, and stays that large.

    Args:
        pipeline: a diffusers image-to-image pipeline.
        image: the picture.
        prompt: the scene's prompt.
        negative_prompt: what not to show; empty = none.
        seed: seeds the refiner's own noise.
        settings: `refiner_strength`, `refiner_steps` and `refiner_guidance_scale`.
    """
    accepted = inspect.signature(pipeline.__call__).parameters
    arguments: dict[str, Any] = {
        "prompt": prompt,
        "negative_prompt": negative_prompt or None,
        "image": image.resize(native_size(pipeline, image.size), Image.Resampling.LANCZOS),
        "strength": settings.refiner_strength,
        "num_inference_steps": settings.refiner_steps,
        "guidance_scale": settings.refiner_guidance_scale,
        "generator": torch.Generator("cpu").manual_seed(seed),
        "output_type": "pil",
    }
    given = {name: value for name, value in arguments.items() if value is not None and name in accepted}
    refined: Image.Image = pipeline(**given).images[0]
    return refined


def native_size(pipeline: Any, size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of about the refiner's own number of pixels and the shape of `size`, in multiples it takes."""
    unet = getattr(pipeline, "unet", None)
    side = getattr(getattr(unet, "config", None), "sample_size", None)
    factor = getattr(pipeline, "vae_scale_factor", 8)
    multiple = 8 * factor
    if not isinstance(side, int):
        return size
    scale = side * factor / math.sqrt(size[0] * size[1])
    width, height = (max(multiple, round(s * scale / multiple) * multiple) for s in size)
    return width, height
