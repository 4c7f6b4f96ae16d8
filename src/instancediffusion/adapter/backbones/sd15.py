"""Stable Diffusion 1.x (Rombach et al. 2022): the base model of the paper, and what `mini` is built like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from .unet import UNetBackbone, text_width_problems


class StableDiffusion1(UNetBackbone):
    """One CLIP text model; also every UNet of that make that is none of the later base models'."""

    name: ClassVar = "sd15"
    title: ClassVar = "Stable Diffusion 1.x"

    def text_problems(self, network: Any, encoders: Sequence[Any]) -> Iterator[str]:
        """Whether the texts are as wide as the UNet takes them."""
        return text_width_problems(network, encoders)
