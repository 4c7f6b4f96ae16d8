"""Components checked against each other when a pipeline is put together, so that no network call fails on shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from instancediffusion.adapter.backbones import Backbone, backbone_of, core_network, find_backbone
from instancediffusion.checkpoints.families import FAMILIES, UNET
from instancediffusion.errors import ModelError


def latent_channels(unet: Any) -> int:
    """Channels of the latents a network denoises; an inpainting UNet takes more than it returns."""
    return backbone_of(unet).latent_channels(unet)


def is_inpainting(unet: Any) -> bool:
    """Whether a UNet takes a mask and the latents of the masked image beside the noisy latents: 9 channels for 4."""
    return int(unet.config.in_channels) == 2 * latent_channels(unet) + 1


def check_components(
    *, unet: Any, vae: Any, text_encoder: Any, tokenizer: Any, text_encoder_2: Any = None, tokenizer_2: Any = None
) -> None:
    """Check what the configurations state. Components that are None are left out.

    Raises:
        ModelError: parts do not belong together; every problem is a line.
    """
    network = core_network(unet)
    backbone = find_backbone(network)
    problems = list(_kind_of_network(network, backbone))
    if not problems and backbone is not None:
        problems += _latents(unet, vae)
        problems += backbone.text_problems(network, (text_encoder, text_encoder_2))
        for name, words, encoder in (
            ("tokenizer", tokenizer, text_encoder),
            ("tokenizer_2", tokenizer_2, text_encoder_2),
        ):
            problems += _vocabulary(name, words, encoder)
    if problems:
        raise ModelError("\n".join(problems))


def check_captions(adapter: Any, width: int) -> None:
    """Raise `ModelError` unless captions are encoded as the adapter takes them."""
    taken = int(adapter.config.caption_dim)
    if taken != width:
        raise ModelError(
            f"adapter: it takes captions of {taken} values and the text encoder makes {width}; take an adapter that "
            "was trained with this text encoder"
        )


def check_inputs(unet: Any, image: Any) -> None:
    """Raise `ModelError` if a UNet draws into an image and the call gives none."""
    if is_inpainting(unet) and image is None:
        raise ModelError(
            f"unet: it is one for inpainting ({unet.config.in_channels} channels) and draws into an image, where a "
            "mask says: give image= and mask_image="
        )


def _kind_of_network(network: Any, backbone: Backbone | None) -> Iterator[str]:
    kind = type(network).__name__
    if backbone is None:
        yield f"unet: a {kind} is no {UNET}; {FAMILIES}"
    elif not backbone.in_pipeline:
        yield f"unet: a {kind} is of {backbone.title}: adapters go on it, and this pipeline does not draw with it"
    else:
        yield from (f"{problem}; {FAMILIES}" for problem in backbone.misfits(network))


def _latents(unet: Any, vae: Any) -> Iterator[str]:
    taken, returned = int(unet.config.in_channels), latent_channels(unet)
    if taken == 2 * returned:
        yield f"unet: it takes {taken} channels, as InstructPix2Pix does, and there is no such pipeline here"
    elif taken != returned and not is_inpainting(unet):
        yield (
            f"unet: it takes {taken} channels and returns {returned}; a text-to-image UNet takes {returned}, an "
            f"inpainting UNet {2 * returned + 1}"
        )
    codes = None if vae is None else vae.config.get("latent_channels")
    if codes is None:
        return
    patch = math.isqrt(returned // codes) if returned >= codes else 0
    if patch * patch * codes != returned:
        yield f"vae: its latents have {codes} channels and those of the UNet {returned}; take the model's own"


def _vocabulary(name: str, tokenizer: Any, encoder: Any) -> Iterator[str]:
    if tokenizer is None or encoder is None:
        return
    size = encoder.config.vocab_size
    # Textual inversion adds tokens to both; a tokenizer may know fewer.
    if len(tokenizer) > size:
        yield f"{name}: it has {len(tokenizer)} tokens and the text encoder {size}; take the model's own"
