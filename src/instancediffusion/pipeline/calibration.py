"""Ranges of a network's layers for computing with 8-bit numbers, measured on pictures and kept on disk."""

from __future__ import annotations

import hashlib
import inspect
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
from instancediffusion.pipeline.kept_graphs import KeptGraphs
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
    """
    chosen = calibration_scenes() if scenes is None else tuple(scenes)
    folder, key = cache_folder() / "int8", _key(pipeline, call, chosen)
    file = folder / f"{key}.safetensors"
    ranges = _read(file)
    if ranges is None:
        ranges = _measured(pipeline, call, chosen)
        with suppress(OSError), atomic_path(file) as temporary:
            save_file(_flat(ranges), temporary)
    call.quantize(ranges, KeptGraphs(folder, key, _code()))


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
    return ranges


def _read(file: Path) -> Ranges | None:
    """Ranges that were kept; None where there are none, or the file is damaged."""
    try:
        kept = load_file(file)
    except (OSError, SafetensorError):
        return None
    layers = {name.removesuffix(".low") for name in kept if name.endswith(".low")}
    return {layer: (kept[f"{layer}.low"], kept[f"{layer}.high"]) for layer in layers}


def _flat(ranges: Ranges) -> dict[str, torch.Tensor]:
    ends = {"low": 0, "high": 1}
    return {f"{name}.{end}": both[index].contiguous() for name, both in ranges.items() for end, index in ends.items()}


def _key(pipeline: Any, call: OpenVINOCall, scenes: Sequence[Scene]) -> str:
    """All that ranges depend on: weights, but also which LoRA files act, and how much."""
    names = ("unet", "adapter", "text_encoder", "text_encoder_2")
    parts = {name: weights_digest(getattr(pipeline, name)) for name in names if getattr(pipeline, name) is not None}
    settings = pipeline.default_settings.decisive()
    return fingerprint(VERSION, STEPS, parts, call.structure(), settings, [scene.to_dict() for scene in scenes])


def _code() -> dict[str, str]:
    """What graphs are made by: versions of libraries, and the text of our own layers."""
    digest = hashlib.sha256()
    for path in sorted(Path(inspect.getfile(OpenVINOCall)).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return {"torch": torch.__version__, "diffusers": diffusers.__version__, "adapter": digest.hexdigest()}


def weights_digest(module: torch.nn.Module) -> str:
    """Hash names, types and values of a module's weights: SHA-256 in hex."""
    digest = hashlib.sha256()
    for name, weights in sorted((*module.named_parameters(), *module.named_buffers())):
        digest.update(f"{name} {weights.dtype} {tuple(weights.shape)}\n".encode())
        flat = weights.detach().cpu().contiguous().view(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
