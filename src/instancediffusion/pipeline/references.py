"""Reference pictures of instances: IP-Adapter pictures that act where the instance is visible."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from instancediffusion.errors import ModelError, SettingsError
from instancediffusion.pipeline.framing import BoxUnit
from instancediffusion.pipeline.layers import latent_locations, shown_regions
from instancediffusion.pipeline.requests import ImageRequest
from instancediffusion.sampling import Branch


@dataclass(frozen=True)
class References:
    """Features of the reference pictures of a run.

    Attributes:
        features: for each IP-Adapter, (P, ...) of all pictures that differ.
        nothing: the same for the unconditional branch, or empty.
        places: for each image, by instance (from 1), the picture.
        regions: for each image, by instance, (h, w) where it is visible in the scene, 0 to 1.
        alone: the same with nothing in front of it, for per-instance branches.
        sizes: of each image, (h, w) in latent pixels.
    """

    features: Sequence[Tensor] = ()
    nothing: Sequence[Tensor] = ()
    places: Sequence[Mapping[int, int]] = ()
    regions: Sequence[Mapping[int, Tensor]] = ()
    alone: Sequence[Mapping[int, Tensor]] = ()
    sizes: Sequence[tuple[int, int]] = ()

    def __bool__(self) -> bool:
        return bool(self.features)

    @property
    def most(self) -> int:
        """Most pictures of one image; 0 if there are none."""
        return max((len(own) for own in self.places), default=0)

    def rows(
        self, adapter: int, branches: Sequence[Branch], images: Sequence[int], frames: Sequence[BoxUnit]
    ) -> tuple[Tensor, Tensor]:
        """Features (R, P, ...) and masks (R, P, h, w) of some branches; slots without a picture are masked."""
        features: list[Tensor] = []
        masks: list[Tensor] = []
        shown = self.features[adapter]
        none = self.nothing[adapter] if self.nothing else torch.zeros_like(shown)
        for branch, frame in zip(branches, frames, strict=True):
            image = images[branch.image]
            own, blank = self.places[image], self.most - len(self.places[image])
            picked = [(shown if branch.conditional else none)[row] for row in own.values()]
            features.append(torch.stack(picked + [torch.zeros_like(shown[0])] * blank))
            regions = [self._region(image, branch, number) for number in own]
            masks.append(_cut(torch.stack(regions + [torch.zeros(self.sizes[image])] * blank), frame))
        return torch.stack(features), torch.stack(masks)

    def _region(self, image: int, branch: Branch, number: int) -> Tensor:
        if branch.trajectory == 0:
            return self.regions[image][number]
        if branch.trajectory == number:
            return self.alone[image][number]
        return torch.zeros(self.sizes[image])


def _cut(masks: Tensor, frame: BoxUnit) -> Tensor:
    height, width = masks.shape[-2:]
    x0, y0, x1, y1 = frame
    return masks[:, round(y0 * height) : round(y1 * height), round(x0 * width) : round(x1 * width)]


def has_ip_adapter(unet: Any) -> bool:
    """Whether IP-Adapters are loaded; diffusers notes it as an attribute of the config, not as an item."""
    return getattr(unet.config, "encoder_hid_dim_type", None) == "ip_image_proj"


def read_references(pipeline: Any, requests: Sequence[ImageRequest], guided: bool) -> References:
    """Features and regions of the references in the scenes of a run; empty if there are none.

    Raises:
        ModelError: there are some, and the model has no IP-Adapter.
    """
    pictures: dict[bytes, int] = {}
    places: list[dict[int, int]] = []
    images = []
    for r in requests:
        own: dict[int, int] = {}
        for number, instance in enumerate(r.scene.instances, 1):
            if instance.reference is not None:
                data = instance.reference.data
                if data not in pictures:
                    pictures[data] = len(pictures)
                    images.append(instance.reference.image)
                own[number] = pictures[data]
        places.append(own)
    if not pictures:
        return References()
    first = next(number for own in places for number in own)
    if not has_ip_adapter(pipeline.unet):
        raise ModelError(
            f"instances[{first - 1}].reference: the model has no IP-Adapter; call load_ip_adapter (--ip-adapter), or "
            "leave the picture out"
        )
    adapters = len(pipeline.unet.encoder_hid_proj.image_projection_layers)
    try:
        found = pipeline.prepare_ip_adapter_image_embeds(
            [images] * adapters, None, pipeline._execution_device, 1, guided
        )
    except (ValueError, AttributeError) as error:
        raise SettingsError(f"instances[{first - 1}].reference: {error}") from error
    dtype = pipeline.unet.dtype
    pairs = [tuple(one.to(dtype).chunk(2)) if guided else (one[:0], one.to(dtype)) for one in found]
    sizes = [(r.size[0] // pipeline.latent_px, r.size[1] // pipeline.latent_px) for r in requests]
    regions, alone = [], []
    for r, own, size in zip(requests, places, sizes, strict=True):
        shown = shown_regions(latent_locations(r.scene, size), size) if own else torch.zeros(0)
        regions.append({number: shown[number - 1] for number in own})
        singles = {n: dataclasses.replace(r.scene, instances=(r.scene.instances[n - 1],)) for n in own}
        found_alone = {number: latent_locations(scene, size) for number, scene in singles.items()}
        alone.append({number: shown_regions(located, size)[0] for number, located in found_alone.items()})
    nothing = [none[0] for none, _ in pairs] if guided else []
    return References([one[0] for _, one in pairs], nothing, places, regions, alone, sizes)
