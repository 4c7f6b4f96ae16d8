"""Ranges of a network's layers for computing with 8-bit numbers, measured on pictures and kept on disk."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from instancediffusion.adapter.openvino import OpenVINOCall
from instancediffusion.adapter.quantization import Ranges
from instancediffusion.conditioning.attention_mask import AttentionBias
from instancediffusion.errors import ModelError, SettingsError
from instancediffusion.pipeline.kept_graphs import KeptGraphs
from instancediffusion.pipeline.references import has_ip_adapter
from instancediffusion.pipeline.timing import bench_scene
from instancediffusion.runs import atomic_path, cache_folder, fingerprint
from instancediffusion.scene import Box, Instance, Point, Scene

VERSION = 1
"""Of what is measured: a greater one measures anew."""
STEPS = 6
"""Steps of a picture, from pure noise to almost none."""


def calibration_scenes() -> tuple[Scene, ...]:
    """Scenes of one, four and eight instances, with boxes and points, whose words every model knows."""
    eight = bench_scene(8)
    mixed = tuple(_pointed(each) if z % 2 else each for z, each in enumerate(eight.instances))
    one = replace(bench_scene(1), prompt="a panda", negative_prompt="a house")
    return bench_scene(4), one, replace(eight, instances=mixed)


def _pointed(instance: Instance) -> Instance:
    box = instance.box
    assert isinstance(box, Box)
    return replace(instance, box=None, point=Point((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2))


def calibrate(pipeline: Any, call: OpenVINOCall, scenes: Sequence[Scene] | None = None) -> None:
    """Measure the ranges of a pipeline's network, or read what was measured of the same weights and scenes.

    A picture of each scene is made by torch: guided if the model is, with instances in all steps of the first scene
    and in half of the steps of the others.

    Args:
        pipeline: the whole model.
        call: of its network; gets the ranges.
        scenes: None are `calibration_scenes`.

    Raises:
        SettingsError: the model has an IP-Adapter, which wants a picture in every call.
        ModelError: the network computes numbers that are not finite.
    """
    if has_ip_adapter(pipeline.unet):
        raise SettingsError(
            "precision: int8 is measured without pictures for an IP-Adapter; unload it, or take another precision"
        )
    chosen = calibration_scenes() if scenes is None else tuple(scenes)
    folder, key = cache_folder() / "int8", _key(pipeline, call, chosen)
    file = folder / f"{key}.safetensors"
    ranges = _read(file)
    if ranges is None:
        ranges = _measured(pipeline, call, chosen)
        with suppress(OSError, SafetensorError), atomic_path(file) as temporary:
            save_file(_flat(ranges), temporary)
    call.quantize(ranges, KeptGraphs(folder, key, _code()))


def calibrate_anew(pipeline: Any) -> None:
    """Calibrate a pipeline again whose weights were changed, if int8 computes it; see `calibrate`."""
    call = OpenVINOCall.of(pipeline.unet)
    if call is not None and call.precision == "int8":
        calibrate(pipeline, call)


def _measured(pipeline: Any, call: OpenVINOCall, scenes: Sequence[Scene]) -> Ranges:
    how = {"num_inference_steps": STEPS, "mis_fraction": 0.0, "cache_interval": 1, "output_type": "latent"}
    bar = getattr(pipeline, "_progress_bar_config", {})
    try:
        with call.measuring() as ranges:
            for seed, scene in enumerate(scenes):
                pipeline.set_progress_bar_config(**(bar | {"desc": f"measuring for int8, {seed + 1} of {len(scenes)}"}))
                pipeline(scene, seed=seed, grounding_fraction=0.5 if seed else 1.0, **how)
    finally:
        pipeline.set_progress_bar_config(**bar)
    for layer, ends in ranges.items():
        if not all(math.isfinite(float(end.sum())) for end in ends):
            raise ModelError(f"precision: {layer} gets numbers that are not finite; load the model in float32")
    return ranges


def _read(file: Path) -> Ranges | None:
    """Ranges that were kept; None where there are none, or the file is damaged."""
    try:
        kept = load_file(file)
        lows = {name.removesuffix(".low"): low for name, low in kept.items() if name.endswith(".low")}
        return {layer: (low, kept[f"{layer}.high"]) for layer, low in lows.items()}
    except (OSError, SafetensorError, KeyError):
        return None


def _flat(ranges: Ranges) -> dict[str, torch.Tensor]:
    ends = {"low": 0, "high": 1}
    return {f"{name}.{end}": both[index].contiguous() for name, both in ranges.items() for end, index in ends.items()}


def _key(pipeline: Any, call: OpenVINOCall, scenes: Sequence[Scene]) -> str:
    """All that ranges depend on: weights, but also which LoRA files act, and how much."""
    names = ("unet", "adapter", "text_encoder", "text_encoder_2")
    parts = {name: weights_digest(getattr(pipeline, name)) for name in names if getattr(pipeline, name) is not None}
    scheduler = repr(sorted((name, repr(value)) for name, value in pipeline.scheduler.config.items() if name[0] != "_"))
    settings = [type(pipeline.scheduler).__name__, scheduler, pipeline.default_settings.decisive()]
    return fingerprint(VERSION, STEPS, parts, call.structure(), settings, [scene.to_dict() for scene in scenes])


def _code() -> dict[str, str]:
    """What graphs are made by: versions of libraries, and the text of our own layers."""
    digest = hashlib.sha256()
    for package in (OpenVINOCall, AttentionBias):
        for path in sorted(Path(inspect.getfile(package)).parent.rglob("*.py")):
            digest.update(path.read_bytes())
    return {"torch": torch.__version__, "diffusers": diffusers.__version__, "layers": digest.hexdigest()}


def weights_digest(module: torch.nn.Module) -> str:
    """Hash names, types and values of a module's weights: SHA-256 in hex."""
    digest = hashlib.sha256()
    for name, weights in sorted((*module.named_parameters(), *module.named_buffers())):
        digest.update(f"{name} {weights.dtype} {tuple(weights.shape)}\n".encode())
        flat = weights.detach().cpu().contiguous().view(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
