"""Components checked against each other when a pipeline is put together, so that no network call fails on shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from instancediffusion.checkpoints.families import FAMILIES, UNET
from instancediffusion.errors import ModelError

_TIME_IDS = 6  # of XL: original size, crop, target size


def latent_channels(unet: Any) -> int:
    """Channels of the latents a UNet denoises; an inpainting UNet takes more than it returns."""
    return int(unet.config.out_channels)


def is_inpainting(unet: Any) -> bool:
    """Whether a UNet takes a mask and the latents of the masked image beside the noisy latents: 9 channels for 4."""
    return int(unet.config.in_channels) == 2 * latent_channels(unet) + 1


def check_components(
    *, unet: Any, vae: Any, text_encoder: Any, tokenizer: Any, text_encoder_2: Any = None, tokenizer_2: Any = None
) -> None:
    """Check what can be told from configurations. Components that are None are left out.

    Raises:
        ModelError: parts do not belong together; every problem is a line.
    """
    problems = list(_kind_of_unet(unet))
    if not problems:
        problems += _latents(unet, vae)
        problems += _texts(unet, text_encoder, text_encoder_2)
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


def _kind_of_unet(unet: Any) -> Iterator[str]:
    plain = getattr(unet, "_orig_mod", unet)  # under torch.compile
    if UNET not in [kind.__name__ for kind in type(plain).__mro__]:
        yield f"unet: a {type(plain).__name__} is no {UNET}; {FAMILIES}"
        return
    config = plain.config
    added = config.get("addition_embed_type")
    if added not in (None, "text_time"):
        yield f"unet: it takes {added!r} beside the time step; {FAMILIES}"
    if config.get("class_embed_type") is not None or config.get("num_class_embeds") is not None:
        yield f"unet: it takes classes beside the time step (an upscaler?); {FAMILIES}"
    if config.get("encoder_hid_dim_type") not in (None, "ip_image_proj"):
        yield f"unet: it takes {config.get('encoder_hid_dim_type')!r} as its context; {FAMILIES}"


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


def _texts(unet: Any, first: Any, second: Any) -> Iterator[str]:
    width = unet.config.cross_attention_dim
    widths = [encoder.config.hidden_size for encoder in (first, second) if encoder is not None]
    given = sum(widths)
    if first is not None and isinstance(width, int) and unet.config.get("encoder_hid_dim_type") is None:
        if unet.config.get("addition_embed_type") == "text_time" and second is None:
            yield "text_encoder_2: the UNet is one of XL and needs a second text encoder; pass text_encoder_2="
        elif given != width:
            told = " and ".join(map(str, widths))
            yield f"text_encoder: its texts have {told} channels and the UNet takes {width}; take the model's own"
    if second is not None and unet.config.get("addition_embed_type") == "text_time":
        inputs = unet.config.projection_class_embeddings_input_dim
        expected = second.config.projection_dim + _TIME_IDS * unet.config.addition_time_embed_dim
        if inputs != expected:
            yield (
                f"text_encoder_2: with its {second.config.projection_dim} projected channels the UNet would be given "
                f"{expected} values beside the time step, and takes {inputs}; take the model's own"
            )


def _vocabulary(name: str, tokenizer: Any, encoder: Any) -> Iterator[str]:
    if tokenizer is None or encoder is None:
        return
    known = encoder.config.vocab_size
    # Textual inversion adds tokens to both; a tokenizer may know fewer.
    if len(tokenizer) > known:
        yield f"{name}: it has {len(tokenizer)} tokens and the text encoder {known}; take the model's own"
