"""Pictures and texts compared by CLIP, and pictures described by a network's features; both by `transformers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from instancediffusion.errors import ModelError

from .models import Floats, model_kind, network, opened

CLIP = "laion/CLIP-ViT-L-14-laion2B-s32B-b82K"
"""The default, the one the published script uses (MIT licence)."""

FEATURES = "facebook/dinov2-base"
"""The default network for Frechet distances (Apache-2.0)."""


class Clip:
    """CLIP.

    Args:
        name: on the hub, or a folder, of a CLIP model.
        device: where it runs.

    Raises:
        ModelError: it is not there, is incomplete, or is another model.
    """

    def __init__(self, name: str = CLIP, device: str = "cpu") -> None:
        from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

        kind = model_kind("clip", name)
        if kind != "clip":
            raise ModelError(f"clip: {name} is a model of the kind {kind!r}; take a CLIP model")
        self._name, self._device = name, device
        self._pixels = opened("clip", name, AutoImageProcessor.from_pretrained)
        self._words = opened("clip", name, AutoTokenizer.from_pretrained)
        self._model = network("clip", name, CLIPModel, device)

    def describe(self) -> Mapping[str, Any]:
        """Return JSON-like facts."""
        return {"name": self._name}

    @torch.inference_mode()
    def similarities(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Floats:
        """Return cosines (N, T)."""
        pixels = self._pixels(images=list(images), return_tensors="pt")
        length = self._model.config.text_config.max_position_embeddings
        words = self._words(list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt")
        answer = self._model(**{key: value.to(self._device) for key, value in {**words, **pixels}.items()})
        pictures = answer.image_embeds.double() / answer.image_embeds.double().norm(dim=1, keepdim=True)
        lines = answer.text_embeds.double() / answer.text_embeds.double().norm(dim=1, keepdim=True)
        cosines: Floats = (pictures @ lines.T).cpu().numpy()
        return cosines


class Features:
    """The pooled output of a vision network: DINOv2, a ViT, the vision half of CLIP, ...

    Args:
        name: on the hub, or a folder.
        device: where it runs.

    Raises:
        ModelError: it is not there or is incomplete.
    """

    def __init__(self, name: str = FEATURES, device: str = "cpu") -> None:
        from transformers import AutoImageProcessor, AutoModel

        self._clip = model_kind("features", name) == "clip"
        self._name, self._device = name, device
        self._pixels = opened("features", name, AutoImageProcessor.from_pretrained)
        self._model = network("features", name, AutoModel, device)

    def describe(self) -> Mapping[str, Any]:
        """Return JSON-like facts."""
        return {"name": self._name}

    @torch.inference_mode()
    def __call__(self, image: Image.Image) -> Floats:
        """Return (D,)."""
        pixels = self._pixels(images=image, return_tensors="pt")["pixel_values"].to(self._device)
        looked = self._model.vision_model if self._clip else self._model
        found = looked(pixel_values=pixels).get("pooler_output")
        if self._clip:
            found = self._model.visual_projection(found)
        if found is None:
            raise ModelError(f"features: {self._name} has no pooled output; take a DINOv2, ViT or CLIP model")
        return np.asarray(found[0].double().flatten().cpu().numpy(), np.float64)
