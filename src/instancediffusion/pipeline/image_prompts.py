"""Pictures as prompts (IP-Adapter): their features for each image of a run, and the other inputs a UNet may ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from instancediffusion.errors import ModelError, SettingsError
from instancediffusion.pipeline.framing import BoxUnit
from instancediffusion.pipeline.references import References, has_ip_adapter
from instancediffusion.sampling import Branch


@dataclass(frozen=True)
class UNetInputs:
    """What the UNet is given beside the text and the grounding.

    Attributes:
        pictures: for each IP-Adapter, features of its pictures (1 or B, ...).
        no_pictures: the same for the unconditional branch; empty where there is none.
        guidance: (D,) the embedding of the guidance scale, for a UNet that was distilled to take it.
        references: the pictures of single instances.
    """

    pictures: Sequence[Tensor] = ()
    no_pictures: Sequence[Tensor] = ()
    guidance: Tensor | None = None
    references: References = field(default_factory=References)

    def of(self, branches: Sequence[Branch], images: Sequence[int], frames: Sequence[BoxUnit]) -> dict[str, Any]:
        """The keyword arguments of the UNet for some branches.

        Args:
            branches: the branches.
            images: the indices of the group's images in the run.
            frames: for each branch, the part of the canvas it is computed on.
        """
        inputs: dict[str, Any] = {}
        shown = [self._rows(k, branches, images) for k in range(len(self.pictures))]
        if self.references:
            own = [self.references.rows(k, branches, images, frames) for k in range(len(self.references.features))]
            masks = [mask for _, mask in own]
            if shown:  # pictures of the whole call act everywhere
                masks = [
                    torch.cat([torch.ones(len(mask), given.shape[1], *mask.shape[2:]), mask], 1)
                    for given, mask in zip(shown, masks, strict=True)
                ]
            shown = [torch.cat([shown[k], features], 1) if shown else features for k, (features, _) in enumerate(own)]
            inputs["cross_attention_kwargs"] = {"ip_adapter_masks": masks}
        if shown:
            inputs["added_cond_kwargs"] = {"image_embeds": shown}
        if self.guidance is not None:
            inputs["timestep_cond"] = self.guidance.expand(len(branches), -1)
        return inputs

    def _rows(self, adapter: int, branches: Sequence[Branch], images: Sequence[int]) -> Tensor:
        rows = []
        for branch in branches:
            features = self.pictures[adapter]
            if not branch.conditional:
                features = self.no_pictures[adapter] if self.no_pictures else torch.zeros_like(features)
            rows.append(features[images[branch.image] if len(features) > 1 else 0])
        return torch.stack(rows)


def image_prompts(
    pipeline: Any, image: Any, embeds: Any, guided: bool, images: int, scenes: int, references: References
) -> UNetInputs:
    """Features of the pictures that a call gives to its IP-Adapters.

    Args:
        pipeline: gives `prepare_ip_adapter_image_embeds`.
        image: as `ip_adapter_image`.
        embeds: as `ip_adapter_image_embeds`: for each adapter (1, n, D), or (2, n, D) with guidance, the negative
            ones first; in place of 1, also the number of images or scenes.
        guided: whether there is an unconditional branch.
        images: of the run.
        scenes: of the run.
        references: the pictures of single instances.

    Raises:
        SettingsError: the UNet has IP-Adapters and no picture is given for them, or the other way round.
    """
    wants = has_ip_adapter(pipeline.unet)
    if image is None and embeds is None:
        if wants and not references:
            raise SettingsError("ip_adapter_image: the model has an IP-Adapter; give it a picture, or unload it")
        return UNetInputs(references=references)
    if image is not None and embeds is not None:
        raise SettingsError("ip_adapter_image: ip_adapter_image_embeds are given, too; leave one of them out")
    if not wants:
        raise SettingsError("ip_adapter_image: the model has no IP-Adapter; call load_ip_adapter first")
    try:
        found = pipeline.prepare_ip_adapter_image_embeds(image, embeds, pipeline._execution_device, 1, guided)
    except ValueError as error:
        raise SettingsError(f"ip_adapter_image: {error}") from error
    dtype = pipeline.unet.dtype
    pairs = [tuple(one.to(dtype).chunk(2)) if guided else (None, one.to(dtype)) for one in found]
    pictures = [_for_images(own, images, scenes) for _, own in pairs]
    nothing = [_for_images(none, images, scenes) for none, _ in pairs if none is not None]
    return UNetInputs(pictures, nothing, references=references)


def _for_images(values: Tensor, images: int, scenes: int) -> Tensor:
    if len(values) in (1, images):
        return values
    if len(values) == scenes:
        return values.repeat_interleave(images // scenes, dim=0)
    raise SettingsError(f"ip_adapter_image_embeds: {len(values)} for {images} images; give one, or one for each")


def guidance_embedding(unet: Any, scale: float) -> Tensor | None:
    """(D,) what a distilled UNet is given of the guidance scale (Meng et al. 2023; LCM); None for other UNets."""
    width = unet.config.get("time_cond_proj_dim")
    if width is None:
        return None
    if width < 4:
        raise ModelError(f"unet: time_cond_proj_dim is {width}; 4 or more is needed")
    half = width // 2
    frequencies = torch.exp(torch.arange(half).float() * (-torch.tensor(10000.0).log() / (half - 1)))
    angles = (scale - 1) * 1000.0 * frequencies
    values = torch.cat([angles.sin(), angles.cos(), torch.zeros(width % 2)])
    return values.to(unet.device, unet.dtype)
