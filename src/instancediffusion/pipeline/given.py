"""Pictures that a call starts from: read, brought to size, encoded, and put back where they are to stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor
from torch.nn import functional

from instancediffusion.errors import SettingsError
from instancediffusion.pipeline.compatibility import is_inpainting, latent_channels
from instancediffusion.pipeline.decoding import encode_pictures
from instancediffusion.pipeline.requests import ImageRequest
from instancediffusion.sampling import Start

_PICTURES = VaeImageProcessor(do_convert_rgb=True)
_MASKS = VaeImageProcessor(do_convert_grayscale=True, do_normalize=False)


@dataclass(frozen=True)
class GivenPicture:
    """A picture to go on from.

    Attributes:
        latents: (C, h, w) clean latents.
        pixels: (3, H, W), -1 to 1; None if the picture was given as latents.
        mask: (1, H, W), 0 (the picture stays, to the pixel) to 1 (it is drawn anew); None = anew everywhere.
        redrawn: (1, h, w), 0 or 1, the same in latent pixels; an inpainting UNet draws all, as it was trained to.
        channels: (C + 1, h, w) an inpainting UNet's input of mask and picture, or None.
    """

    latents: Tensor
    pixels: Tensor | None = None
    mask: Tensor | None = None
    redrawn: Tensor | None = None
    channels: Tensor | None = None

    def kept_in(self, picture: Tensor) -> Tensor:
        """A drawn picture (3, H, W) with the given one where that stays."""
        if self.mask is None or self.pixels is None:
            return picture
        blended = self.mask * picture + (1 - self.mask) * self.pixels
        # Not by arithmetic alone: what is kept is kept to the last bit, also beside values that are not finite.
        return torch.where(self.mask <= 0, self.pixels, torch.where(self.mask >= 1, picture, blended))


def as_list(value: Any, name: str, count: int, scenes: int) -> list[Any]:
    """One value for each image of a run from one for all, for each scene, or for each image.

    Raises:
        SettingsError: their number is another.
    """
    if isinstance(value, Tensor | np.ndarray):
        value = list(value) if value.ndim == 4 else [value]
    given = list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
    if len(given) == 1:
        return given * count
    if len(given) == count:
        return given
    if len(given) == scenes:
        return [one for one in given for _ in range(count // scenes)]
    raise SettingsError(f"{name}: {len(given)} for {count} images; give one, or one for each")


def picture_side(image: Any, mask: Any, multiple: int) -> tuple[int, int] | None:
    """(height, width) of the first picture given, rounded down to a multiple; None if it is not given by pixels."""
    for given in (image, mask):
        first = given
        while isinstance(first, list | tuple) and first:
            first = first[0]
        if isinstance(first, Image.Image):
            sides = (first.height, first.width)
        elif isinstance(first, np.ndarray) and first.ndim >= 2:
            shape = first.shape[1:] if first.ndim == 4 else first.shape
            sides = (int(shape[0]), int(shape[1]))
        elif isinstance(first, Tensor) and first.ndim >= 2 and (first.ndim == 2 or first.shape[-3] in (1, 3)):
            sides = (int(first.shape[-2]), int(first.shape[-1]))
        else:
            continue
        return max(multiple, sides[0] // multiple * multiple), max(multiple, sides[1] // multiple * multiple)
    return None


def given_pictures(
    pipeline: Any, image: Any, mask_image: Any, requests: Sequence[ImageRequest], scenes: int
) -> list[GivenPicture]:
    """The pictures of a run, encoded.

    Args:
        pipeline: gives the autoencoder, the UNet's shape and the device.
        image: one or several, of any kind `VaeImageProcessor` takes, or latents (C, h, w); None for an inpainting UNet
            that is to draw all of the picture.
        mask_image: one or several; white is drawn anew. None = all.
        requests: the images of the run.
        scenes: of the run.

    Raises:
        SettingsError: a picture is of a kind that cannot be read, or their number does not fit.
    """
    images = [None] * len(requests) if image is None else as_list(image, "image", len(requests), scenes)
    masks = [None] * len(requests) if mask_image is None else as_list(mask_image, "mask_image", len(requests), scenes)
    encoded: dict[tuple[int, int, tuple[int, int]], GivenPicture] = {}
    found = []
    for r, own, mask in zip(requests, images, masks, strict=True):
        key = (id(own), id(mask), r.size)
        if key not in encoded:
            encoded[key] = _given(pipeline, own, mask, r.size)
        found.append(encoded[key])
    return found


def start_of(pictures: Sequence[GivenPicture], first: int) -> Start:
    """The start of a run from the pictures of one size."""
    redrawn = [picture.redrawn for picture in pictures if picture.redrawn is not None]
    channels = [picture.channels for picture in pictures if picture.channels is not None]
    return Start(
        torch.stack([picture.latents for picture in pictures]),
        first,
        torch.stack(redrawn) if redrawn else None,
        torch.stack(channels) if channels else None,
    )


def _given(pipeline: Any, image: Any, mask_image: Any, size: tuple[int, int]) -> GivenPicture:
    channels, latent_px = latent_channels(pipeline.unet), pipeline.latent_px
    latent_size = (size[0] // latent_px, size[1] // latent_px)
    mask = None if mask_image is None else _pixels(_MASKS, mask_image, "mask_image", size)[:1].clamp(0, 1)
    pixels = None
    if isinstance(image, Tensor) and image.ndim == 3 and image.shape[0] == channels != 3:
        if tuple(image.shape[1:]) != latent_size:
            raise SettingsError(
                f"image: its latents are {tuple(image.shape)}, this image needs {(channels, *latent_size)}"
            )
        latents = image.detach().float().cpu()
    elif image is not None:
        pixels = _pixels(_PICTURES, image, "image", size)
        latents = _encoded(pipeline, pixels)
    else:
        latents = torch.zeros(channels, *latent_size)
    redrawn = None
    if mask is not None:
        # A latent pixel is drawn anew if any of its image pixels is, or what is asked for could not be drawn.
        redrawn = functional.adaptive_max_pool2d((mask >= 0.5).float()[None], latent_size)[0]
    beside = None
    if is_inpainting(pipeline.unet):
        shown = torch.ones(1, *latent_size) if redrawn is None else redrawn
        hidden = torch.zeros(1, *size) if mask is None else (mask < 0.5).float()
        masked = torch.zeros(3, *size) if pixels is None else pixels * hidden
        kept = latents * (1 - shown) if pixels is None and image is not None else _encoded(pipeline, masked)
        beside = torch.cat([shown, kept])
        redrawn = torch.ones(1, *latent_size)
    return GivenPicture(latents, pixels, mask, redrawn, beside)


def _pixels(processor: VaeImageProcessor, image: Any, name: str, size: tuple[int, int]) -> Tensor:
    """(C, H, W) of one picture."""
    if isinstance(image, Image.Image) and image.mode not in ("RGB", "L"):
        image = _opaque(image) if processor is _PICTURES else image.convert("L")
    try:
        batch: Tensor = processor.preprocess(image, height=size[0], width=size[1])
    except (ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise SettingsError(f"{name}: {str(error).splitlines()[0] or type(image).__name__}; give a picture") from error
    if batch.shape[0] != 1 or batch.shape[1] not in (1, 3):
        raise SettingsError(f"{name}: its shape {tuple(batch.shape)} is not that of a picture")
    return batch[0].float()


def _opaque(image: Image.Image) -> Image.Image:
    """RGB, what is transparent on white."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _encoded(pipeline: Any, pixels: Tensor) -> Tensor:
    shown = pixels[None].to(pipeline._execution_device)
    return encode_pictures(pipeline.vae, shown, latent_channels(pipeline.unet), upcast=pipeline.backbone.upcasts_vae)[0]
