"""What calls of the network and whole pictures cost on this machine; what presets and their levers save."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel

from instancediffusion.adapter import Grounding, InstanceAdapter
from instancediffusion.adapter.backbones import backbone_of
from instancediffusion.adapter.deep_cache import OuterBlocks
from instancediffusion.conditioning import LocationTensors
from instancediffusion.presets import find_preset
from instancediffusion.scene import Box, Instance, Mask, Point, Scene
from instancediffusion.settings import GenerationSettings

NAMES = ("panda", "castle", "tree", "house", "car", "apple", "vase", "robot")  # over and over

LEVERS: Mapping[str, tuple[str, ...]] = {
    "fewer steps": ("scheduler", "num_inference_steps", "timesteps", "sigmas"),
    "guidance in an interval": ("guidance_start", "guidance_end"),
    "grounding in a share": ("grounding_fraction", "grounding_decay_fraction"),
    "Multi-instance Sampler": ("mis_fraction", "mis_merge", "mis_compat"),
    "deep features reused": ("cache_interval",),
    "tokens merged": ("token_merging",),
}
"""The settings that make one lever."""


@dataclass(frozen=True)
class Measured:
    """One row of the table.

    Attributes:
        name: of preset and lever.
        seconds: median time of a picture.
        share: fraction of the time that the first row takes.
        rows: NFE, in batch elements; one that reuses deep features counts as any other.
        change: root mean square of the difference to the first row's picture, 0 to 255.
    """

    name: str
    seconds: float
    share: float
    rows: float
    change: float

    def values(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def bench_scene(number: int) -> Scene:
    """So many overlapping boxes with sides from .2 to .4 of the canvas, the same first ones for any number."""
    rng = np.random.Generator(np.random.PCG64(8))
    instances = []
    for z in range(number):
        name = NAMES[z % len(NAMES)]
        side = rng.uniform(0.2, 0.4)
        x, y = rng.uniform(0, 1 - side, 2)
        instances.append(Instance(f"a {name}", box=Box(x, y, x + side, y + side), z_order=z))
    return Scene("objects in a meadow", tuple(instances), 512, 512)


def pictures(
    pipeline: Any, scene: Scene, presets: Sequence[str], *, repeats: int, lora: str | None = None
) -> Iterator[Measured]:
    """Measure pictures of a scene: with the model's own settings, with each preset, and with each of its levers alone.

    Args:
        pipeline: the model.
        scene: what is drawn.
        presets: their names.
        repeats: pictures that are timed, after one that is not.
        lora: a LoRA file distilled to few steps; presets are measured once more with it.
    """
    own: GenerationSettings = pipeline.default_settings
    cases = {"the model's own": own}
    for name in presets:
        preset = find_preset(name)
        for lever, fields in LEVERS.items():
            values = {field: value for field, value in preset.on(vars(own)).items() if field in fields}
            cases.setdefault(f"{name}: {lever} alone", own.replace(**values))
        cases[name] = GenerationSettings.preset(name, own)
    reference: tuple[float, np.ndarray[Any, Any]] | None = None
    measure = partial(_measured, pipeline, scene, repeats)
    for name, settings in cases.items():
        if reference is not None and settings == own:
            continue  # a lever that the model pulls anyway
        row, picture = measure(name, settings, reference)
        reference = reference or (row.seconds, picture)
        yield row
    if lora is not None:
        pipeline.load_lora_weights(lora)
        for name in presets:
            settings = GenerationSettings.preset(name, own, pipeline.loras_in_use)
            yield measure(f"{name}, with {Path(lora).name}", settings, reference)[0]


def _measured(
    pipeline: Any,
    scene: Scene,
    repeats: int,
    name: str,
    settings: GenerationSettings,
    reference: tuple[float, np.ndarray[Any, Any]] | None,
) -> tuple[Measured, np.ndarray[Any, Any]]:
    seconds = []
    output = pipeline(scene, seed=0, settings=settings)
    for _ in range(repeats):
        start = time.perf_counter()
        output = pipeline(scene, seed=0, settings=settings)
        seconds.append(time.perf_counter() - start)
    picture, median = np.asarray(output.images[0]).astype(float), statistics.median(seconds)
    usual, before = reference or (median, picture)
    change = float(np.sqrt(np.square(picture - before).mean()))
    return Measured(name, median, median / usual, output.network_rows, change), picture


def unet_calls(
    unet: UNet2DConditionModel, adapter: InstanceAdapter, instances: int, side: int
) -> Iterator[tuple[str, Callable[[], object]]]:
    """The kinds of call that a picture is made of, by name, each ready to be timed.

    Args:
        unet: with the adapter grafted on.
        adapter: that adapter.
        instances: of the scene.
        side: of the latents.
    """
    generator = torch.Generator().manual_seed(0)
    dtype = unet.dtype
    x = torch.randn(1, 4, side, side, generator=generator).to(dtype)
    context = torch.randn(1, 77, 768, generator=generator).to(dtype)
    captions = torch.randn(1, instances, 768, generator=generator).to(dtype)
    bitmap = torch.zeros(512, 512, dtype=torch.bool)
    bitmap[100:300, 60:200] = True
    mask = Mask.from_array(bitmap.numpy())
    scene = Scene(
        prompt="a scene",
        width=512,
        height=512,
        instances=tuple(
            Instance(caption="a thing", box=Box(0.1, 0.2, 0.6, 0.7), point=Point(0.3, 0.4), mask=mask)
            for _ in range(instances)
        ),
    )
    locations = adapter.locations([scene])

    def ground(rule: str = "none", given: LocationTensors = locations, features: torch.Tensor = captions) -> Grounding:
        with torch.inference_mode():
            grounding: Grounding = adapter(given, features, instance_mask=rule)
            return grounding

    sizes = backbone_of(unet).map_sizes(unet, side, side)

    def call(grounding: Grounding) -> Callable[[], object]:
        with torch.inference_mode():
            attention = {"grounding": grounding.on_maps(sizes)}

        def run() -> object:
            with torch.inference_mode():
                return unet(x, 500, encoder_hidden_states=context, cross_attention_kwargs=attention)

        return run

    conditional = ground()
    null = ground(given=LocationTensors.empty(1), features=captions[:, :0])
    blocks = OuterBlocks(unet)

    def outer() -> object:
        with torch.inference_mode():
            attention = {"grounding": conditional.on_maps(sizes)}
            inputs = {"encoder_hidden_states": context, "cross_attention_kwargs": attention}
            if not features:
                features.append(blocks.whole(unet, x, 500, **inputs)[1])
            return blocks.outer(features[0], x, 500, **inputs)

    features: list[torch.Tensor] = []
    yield "tokens and keys, once a scene", ground
    yield "call, conditional", call(conditional)
    yield "call, unconditional", call(null)
    yield "call, grounding scale 0", call(conditional.scaled(0))
    yield "call, deep features reused", outer
    yield "call, instance mask 'grounding'", call(ground("grounding"))
    yield "call, instance mask 'full'", call(ground("full"))
    yield "call, instance mask 'visibility'", call(ground("visibility"))


def median_seconds(run: Callable[[], object], calls: int) -> float:
    """Median wall time of some calls, after one that does not count."""
    run()
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def peak_gib() -> float:
    """Most memory this process has had so far; NaN on Windows."""
    try:
        import resource
    except ImportError:  # not on Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
