"""The methods of a Stable Diffusion pipeline that turn prompts and pictures into numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models import ImageProjection
from diffusers.utils import USE_PEFT_BACKEND, scale_lora_layers, unscale_lora_layers
from torch import Tensor

from instancediffusion.errors import SettingsError
from instancediffusion.pipeline.decoding import to_images


@contextmanager
def lora_scaled(text_encoder: Any, scale: float | None) -> Iterator[None]:
    """Weigh the LoRA layers of a text encoder for a while; None leaves them as they are."""
    if scale is None or text_encoder is None or not USE_PEFT_BACKEND:
        yield
        return
    scale_lora_layers(text_encoder, scale)
    try:
        yield
    finally:
        unscale_lora_layers(text_encoder, scale)


class EncodingMethods:
    """`encode_prompt`, `encode_image` and their kin, by the names and arguments they have in diffusers."""

    tokenizer: Any
    text_encoder: Any
    image_encoder: Any
    feature_extractor: Any
    safety_checker: Any
    unet: Any
    config: Any
    _execution_device: Any
    backbone: Any
    takes_pooled: Any
    maybe_convert_prompt: Any

    def encode_prompt(
        self,
        prompt: str | Sequence[str] | None,
        device: torch.device | str | None = None,
        num_images_per_prompt: int | None = 1,
        do_classifier_free_guidance: bool = True,
        negative_prompt: str | Sequence[str] | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        lora_scale: float | None = None,
        clip_skip: int | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
    ) -> tuple[Tensor | None, ...]:
        """Encode prompts, as `StableDiffusionPipeline.encode_prompt` does; long ones in several windows.

        With XL, as `StableDiffusionXLPipeline.encode_prompt` by keyword: no negative prompt at all is zeros.

        Args:
            prompt: a prompt, or several.
            device: where to compute; None means where the pipeline is.
            num_images_per_prompt: how often to repeat each; None means once.
            do_classifier_free_guidance: whether negative prompts are wanted, too.
            negative_prompt: one for all, or one for each; None means empty ones.
            prompt_embeds: prompts that are encoded already.
            negative_prompt_embeds: negative prompts that are encoded already.
            lora_scale: weight of the text encoder's LoRA layers.
            clip_skip: layers to leave out for prompts, from the last on.
            pooled_prompt_embeds: what goes with `prompt_embeds`, with XL.
            negative_pooled_prompt_embeds: what goes with `negative_prompt_embeds`, with XL.

        Returns:
            Prompts and negative prompts (B, L, D); shorter ones are followed by empty windows up to the longest L. With
            XL also their projected texts (B, P).
        """
        zeros = self.takes_pooled and negative_prompt is None and self.config.get("force_zeros_for_empty_prompt", True)
        target = device or self._execution_device
        prompts = [prompt] if isinstance(prompt, str) else list(prompt or ())
        count = len(prompts) if prompt_embeds is None else len(prompt_embeds)
        negatives = [negative_prompt or ""] * count if not isinstance(negative_prompt, Sequence) else negative_prompt
        negatives = [negatives] * count if isinstance(negatives, str) else list(negatives)
        if do_classifier_free_guidance and negative_prompt_embeds is None and len(negatives) != count:
            raise SettingsError(f"negative_prompt: {len(negatives)} for {count} prompts; give one for each")
        with lora_scaled(self.text_encoder, lora_scale):
            if prompt_embeds is None:
                prompt_embeds, pooled_prompt_embeds = self._encode(prompts, target, clip_skip)
            if do_classifier_free_guidance and negative_prompt_embeds is None and zeros:
                negative_prompt_embeds = torch.zeros_like(prompt_embeds)
                if pooled_prompt_embeds is not None:
                    negative_pooled_prompt_embeds = torch.zeros_like(pooled_prompt_embeds)
            elif do_classifier_free_guidance and negative_prompt_embeds is None:
                negative_prompt_embeds, negative_pooled_prompt_embeds = self._encode(negatives, target, None)
                longest = max(negative_prompt_embeds.shape[1], prompt_embeds.shape[1])
                prompt_embeds = self._with_empty_windows(prompt_embeds, longest, target)
                negative_prompt_embeds = self._with_empty_windows(negative_prompt_embeds, longest, target)
        found = [prompt_embeds, negative_prompt_embeds]
        found += [pooled_prompt_embeds, negative_pooled_prompt_embeds] if self.takes_pooled else []
        repeated = [None if one is None else one.repeat_interleave(num_images_per_prompt or 1, dim=0) for one in found]
        return tuple(repeated)

    def _encode(
        self, texts: Sequence[str], device: torch.device | str, clip_skip: int | None
    ) -> tuple[Tensor, Tensor | None]:
        """Contexts (B, L, D), and with XL projected texts (B, P)."""
        bank = self.backbone.encode(self, texts, clip_skip=clip_skip, device=device)
        longest = max(bank.lengths)
        rows = [bank.row[text] for text in texts]
        whole = [bank.contexts[row : row + 1, : bank.lengths[row]] for row in rows]
        contexts = torch.cat([self._with_empty_windows(context, longest, device) for context in whole])
        return contexts, None if bank.projected is None else bank.projected[rows]

    def _with_empty_windows(self, contexts: Tensor, length: int, device: torch.device | str) -> Tensor:
        if contexts.shape[1] >= length:
            return contexts
        empty = self._encode([""], device, None)[0].to(contexts)
        missing = length - contexts.shape[1]
        windows = empty.repeat(len(contexts), -(-missing // empty.shape[1]), 1)
        return torch.cat([contexts, windows[:, :missing]], dim=1)

    def encode_image(
        self,
        image: Any,
        device: torch.device | str,
        num_images_per_prompt: int,
        output_hidden_states: bool | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Features of pictures, and of none, for an IP-Adapter; as `StableDiffusionPipeline.encode_image`.

        Args:
            image: pictures, or (B, 3, H, W) as the image encoder takes them.
            device: where to compute.
            num_images_per_prompt: how often to repeat each.
            output_hidden_states: take the states before the last layer in place of the embedding.
        """
        dtype = next(self.image_encoder.parameters()).dtype
        if not isinstance(image, Tensor):
            image = self.feature_extractor(image, return_tensors="pt").pixel_values
        image = image.to(device=device, dtype=dtype)
        if output_hidden_states:
            found = self.image_encoder(image, output_hidden_states=True).hidden_states[-2]
            nothing = self.image_encoder(torch.zeros_like(image), output_hidden_states=True).hidden_states[-2]
        else:
            found = self.image_encoder(image).image_embeds
            nothing = torch.zeros_like(found)
        return (
            found.repeat_interleave(num_images_per_prompt, dim=0),
            nothing.repeat_interleave(num_images_per_prompt, dim=0),
        )

    def prepare_ip_adapter_image_embeds(
        self,
        ip_adapter_image: Any,
        ip_adapter_image_embeds: Sequence[Tensor] | None,
        device: torch.device | str,
        num_images_per_prompt: int,
        do_classifier_free_guidance: bool,
    ) -> list[Tensor]:
        """Features of the pictures of each IP-Adapter, the unconditional ones first; as diffusers' own method.

        Raises:
            ValueError: the number of pictures is not that of the IP-Adapters.
        """
        layers = self.unet.encoder_hid_proj.image_projection_layers
        if ip_adapter_image_embeds is None:
            pictures = ip_adapter_image if isinstance(ip_adapter_image, list) else [ip_adapter_image]
            if len(pictures) != len(layers):
                raise ValueError(
                    f"{len(pictures)} pictures for {len(layers)} IP-Adapters; give one for each, in a list"
                )
            pairs = []
            for picture, layer in zip(pictures, layers, strict=True):
                states = not isinstance(layer, ImageProjection)
                found, nothing = self.encode_image(picture, device, 1, states)
                pairs.append((found[None, :], nothing[None, :]))
        else:
            if len(ip_adapter_image_embeds) != len(layers):
                raise ValueError(
                    f"{len(ip_adapter_image_embeds)} features for {len(layers)} IP-Adapters; give one each"
                )
            pairs = []
            for embeds in ip_adapter_image_embeds:
                nothing, found = embeds.chunk(2) if do_classifier_free_guidance else (embeds, embeds)
                pairs.append((found, nothing))
        embedded = []
        for found, nothing in pairs:
            found = torch.cat([found] * num_images_per_prompt)
            if do_classifier_free_guidance:
                found = torch.cat([torch.cat([nothing] * num_images_per_prompt), found])
            embedded.append(found.to(device))
        return embedded

    def run_safety_checker(
        self, image: Tensor, device: torch.device | str, dtype: torch.dtype
    ) -> tuple[Tensor, list[bool] | None]:
        """Blacken unsafe pictures (B, 3, H, W) from -1 to 1; as `StableDiffusionPipeline.run_safety_checker`."""
        if self.safety_checker is None:
            return image, None
        inputs = self.feature_extractor(to_images(image), return_tensors="pt").to(device)
        found, flags = self.safety_checker(images=image.clone(), clip_input=inputs.pixel_values.to(dtype))
        for index, unsafe in enumerate(flags):
            if unsafe:  # the checker writes 0, which is grey here
                found[index] = -1.0
        return found, [bool(flag) for flag in flags]
