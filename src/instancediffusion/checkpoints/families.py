"""Which pipelines the adapter goes on, read from `model_index.json` before any weights are downloaded or read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instancediffusion.adapter.backbones import BACKBONES
from instancediffusion.errors import ModelError

FAMILIES = "InstanceDiffusion goes on the UNets of Stable Diffusion 1.x, 2.x and XL"
UNET = "UNet2DConditionModel"


def check_family(index: Mapping[str, Any], where: str) -> None:
    """Refuse a pipeline of another architecture, in one sentence.

    Args:
        index: what its `model_index.json` states.
        where: the model's name, for messages.

    Raises:
        ModelError: its denoiser is no UNet of these families, or it is a part of a model only.
    """
    stated = index.get("_class_name")
    name = stated[1] if isinstance(stated, list) else stated or "a pipeline of no known class"
    unet = index.get("unet")
    if not isinstance(unet, list) or unet[1] is None:
        denoiser = next((part for part in ("transformer", "prior", "decoder", "prior_prior") if part in index), None)
        has = "no UNet" if denoiser is None else f"a {denoiser} in place of a UNet"
        raise ModelError(f"model: {where} is {name} and has {has}; {FAMILIES}")
    fitting = [backbone for backbone in BACKBONES.values() if backbone.in_pipeline and backbone.network == unet[1]]
    if not fitting:
        raise ModelError(f"model: {where} is {name} and its UNet is a {unet[1]}; {FAMILIES}")
    if "vae" not in index:
        raise ModelError(f"model: {where} is {name} and has no vae; {FAMILIES}")
    texts = {part: index.get(part) or [None, None] for part in ("text_encoder", "text_encoder_2")}
    if texts["text_encoder"][1] is None and texts["text_encoder_2"][1] is not None:
        raise ModelError(f"model: {where} is {name}, the refiner of XL; use it as --refiner (load_refiner)")
    encoders = {name for backbone in fitting for name in backbone.text_encoders}
    for part, (_, kind) in texts.items():
        if kind is not None and kind not in encoders:
            raise ModelError(f"model: {where} is {name} and its {part} is a {kind}; {FAMILIES}")
