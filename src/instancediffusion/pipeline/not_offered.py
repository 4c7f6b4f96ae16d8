"""What users of diffusers may ask for and this pipeline does not offer: each refused by its name, with the reason."""

from __future__ import annotations

from collections.abc import Mapping

_PAG = "perturbed-attention guidance is not offered: it swaps the attention that the instances go through"
_SIZES = "XL is told the size of the picture, uncropped; other sizes are not offered; leave it out"
_ENSEMBLE = "splitting the schedule between base and refiner is not offered; load_refiner() refines whole pictures"
_AESTHETIC = "it belongs to XL's refiner; load_refiner() takes one, and there it has its own value"
_GLIGEN = (
    "layouts are given as instances; give Instance(caption, box=...), and grounding_fraction for how long they act"
)
_SECOND = "both text encoders of XL read one prompt; to tell them apart give prompt_embeds and pooled_prompt_embeds"
_STEPS = "it is deprecated in diffusers and not offered; give callback_on_step_end"

NOT_OFFERED: Mapping[str, str] = {
    "pag_scale": _PAG,
    "pag_adaptive_scale": _PAG,
    "pag_applied_layers": _PAG,
    "enable_pag": _PAG,
    "sag_scale": "self-attention guidance is not offered: it reads the attention that the instances go through",
    "guess_mode": "a ControlNet without a prompt is not offered; give an empty prompt and guidance_scale=1",
    "control_mode": "ControlNets of several kinds in one (Union) are not offered; give one for each kind",
    "padding_mask_crop": "drawing a crop alone is not offered; edit() draws what changes, and keeps the rest",
    "masked_image_latents": "it is made of image and mask_image; give those",
    "adapter_conditioning_scale": "here it is t2i_adapter_conditioning_scale",
    "adapter_conditioning_factor": "T2I-Adapters act in all steps; leave it out",
    "prompt_2": _SECOND,
    "negative_prompt_2": _SECOND,
    "original_size": _SIZES,
    "target_size": _SIZES,
    "crops_coords_top_left": _SIZES,
    "negative_original_size": _SIZES,
    "negative_target_size": _SIZES,
    "negative_crops_coords_top_left": _SIZES,
    "denoising_start": _ENSEMBLE,
    "denoising_end": _ENSEMBLE,
    "aesthetic_score": _AESTHETIC,
    "negative_aesthetic_score": _AESTHETIC,
    "gligen_phrases": _GLIGEN,
    "gligen_boxes": _GLIGEN,
    "gligen_images": "pictures of instances are given as Instance(..., reference=picture), with an IP-Adapter",
    "gligen_scheduled_sampling_beta": _GLIGEN,
    "callback": _STEPS,
    "callback_steps": _STEPS,
}
"""Arguments of diffusers' Stable Diffusion pipelines -> why not, and what to do."""
