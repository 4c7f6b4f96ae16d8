"""Stable Diffusion 2.x: OpenCLIP's text model, 1024 wide, in the place of CLIP's.

Its layers but the last are the whole text encoder as diffusers writes it, and whether it predicts noise or velocity is
said by its scheduler: nothing else differs from 1.x.
"""

from __future__ import annotations

from typing import Any, ClassVar

from .sd15 import StableDiffusion1

TEXT_WIDTH = 1024


class StableDiffusion2(StableDiffusion1):
    """One OpenCLIP text model."""

    name: ClassVar = "sd2"
    title: ClassVar = "Stable Diffusion 2.x"

    def fits(self, network: Any) -> bool:
        """A UNet that takes texts of that width, and nothing beside the time step."""
        config = getattr(network, "config", {})
        plain = super().fits(network) and config.get("addition_embed_type") is None
        return plain and config.get("cross_attention_dim") == TEXT_WIDTH
