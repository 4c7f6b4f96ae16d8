"""What a picture will take, from a few calibration calls: seconds against instances, canvas and steps.

    python benchmarks/cost_law.py                               # mini
    python benchmarks/cost_law.py --size sd15 --dtype bfloat16  # Stable Diffusion 1.5's size with random weights

With `--keep FILE` what was measured is kept as it comes: a run that was stopped goes on where it was.

A guided call on a canvas of A times the model's own takes g(A) = a + b A + c A^2 with its instances, and u(A) = r g(A)
without: b for what is done to each pixel by itself, c for self-attention. Calls with instances on three canvases give
a, b and c (none below zero), one without gives r, and one under `regional` what each text's cross-attention adds, d A.
A guided picture of N instances and S steps, G of them grounded and M before the merge, takes

    G g(A) + (S - G) u(A) + M (a K + sum_i b A_i + c A_i^2 + d A N) + e,

A_i the crop of instance i (`layered`; the whole canvas under `mean`; none under `regional`, which alone has d), K the
number of different sizes of crops, which share a call, and e, the texts and tokens, measured once as what a picture of
one step takes beyond its calls. Nothing of the pictures in the table went into these numbers.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from instancediffusion.pipeline.merging import merge_rule, steps_before_merge
from instancediffusion.pipeline.random_weights import measured_pipeline
from instancediffusion.pipeline.timing import bench_scene
from instancediffusion.sampling import steps_in_fraction
from instancediffusion.scene import resize_scene
from instancediffusion.settings import GenerationSettings

CALIBRATED = 4
"""Instances of the scene of the calibration."""

CANVASES = {"mini": ((0.5, 1.0), (1.0, 1.0), (2.0, 2.0)), "sd15": ((0.5, 0.5), (0.5, 1.0), (1.0, 1.0))}
"""Height and width of the canvases of the calibration, in the model's own; a small model's smallest calls are all
overhead."""

# Instances, height and width in calibrated sides, steps, merge rule (None = none).
POINTS: dict[str, tuple[tuple[int, float, float, int, str | None], ...]] = {
    "mini": (
        (1, 1, 1, 8, None),
        (16, 1, 1, 8, None),
        (4, 1, 1, 30, None),
        (4, 0.75, 1, 8, None),
        (4, 1.5, 1.5, 8, None),
        (4, 2, 1, 8, None),
        (4, 1, 1, 8, "mean"),
        (8, 1, 1, 10, "layered"),
        (16, 1, 1, 8, "regional"),
    ),
    "sd15": (
        (1, 0.5, 0.5, 2, None),
        (4, 0.5, 0.5, 8, None),
        (16, 0.5, 0.5, 2, None),
        (4, 0.75, 0.75, 2, None),
        (1, 1, 1, 2, None),
        (16, 1, 1, 2, None),
        (4, 0.5, 0.5, 3, "mean"),
        (8, 0.75, 0.5, 3, "layered"),
        (16, 1, 1, 2, "regional"),
    ),
}

LONG = {"mini": 5, "sd15": 3}
"""Steps of the longer of the two pictures whose difference is a call."""


def non_negative(inputs: torch.Tensor, outputs: torch.Tensor) -> list[float]:
    """Least squares without coefficients below zero: what would be negative is left out, the most negative first."""
    kept = list(range(inputs.shape[1]))
    while True:
        found = torch.linalg.lstsq(inputs[:, kept], outputs[:, None]).solution[:, 0].tolist()
        if min(found) >= 0:
            return [found[kept.index(i)] if i in kept else 0.0 for i in range(inputs.shape[1])]
        del kept[found.index(min(found))]


def main() -> None:
    """Measure, predict and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(POINTS), default="mini")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: with one thread alone")
    parser.add_argument("--keep", type=Path, help="JSON file of what was measured, which is not measured again")
    options = parser.parse_args()
    kept = json.loads(options.keep.read_text()) if options.keep and options.keep.exists() else {}
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    pipe = measured_pipeline("random" if options.size == "sd15" else "mini", getattr(torch, options.dtype))
    pipe.set_progress_bar_config(disable=True)
    native = bench_scene(CALIBRATED)
    side = pipe.picture_size(native, pipe.default_settings)[0]
    factor = pipe.backbone.latent_multiple(pipe.unet)
    latent_px = side // int(pipe.unet.config.sample_size)

    def take(number: int, height: float, width: float, settings: GenerationSettings) -> tuple[float, tuple[int, int]]:
        """Least seconds of a picture, and its size in pixels."""
        rows, columns = (round(side * scale / factor / latent_px) * factor * latent_px for scale in (height, width))
        scene = resize_scene(bench_scene(number), width=columns, height=rows)
        chosen = settings.replace(height=rows, width=columns)
        key = json.dumps([options.size, options.dtype, options.clock, number, rows, columns, settings.to_dict()])
        if key in kept:
            return kept[key], (rows, columns)
        found = []
        for _ in range(options.repeats + (options.size == "mini")):
            start = clock()
            pipe(scene, seed=0, settings=chosen, output_type="latent")
            found.append(clock() - start)
        kept[key] = min(found[-options.repeats :])
        if options.keep:
            options.keep.write_text(json.dumps(kept))
        return kept[key], (rows, columns)

    base = GenerationSettings(
        scheduler="ddim", guidance_scale=3.0, grounding_fraction=1.0, mis_fraction=0.0, num_inference_steps=1
    )
    few, many = base, base.replace(num_inference_steps=LONG[options.size])

    def call(height: float, width: float, **how: object) -> tuple[float, float]:
        """Seconds of a guided call: what more steps take; and what a picture takes beside them."""
        short, _ = take(CALIBRATED, height, width, few.replace(**how))
        long, _ = take(CALIBRATED, height, width, many.replace(**how))
        seconds = (long - short) / (LONG[options.size] - 1)
        return seconds, short - seconds

    areas = CANVASES[options.size]
    if options.size == "sd15":
        pipe(bench_scene(1), seed=0, settings=few.replace(height=side // 4, width=side // 4), output_type="latent")
    measured = [call(*area) for area in areas]
    pixels = torch.tensor([[1.0, h * w, (h * w) ** 2] for h, w in areas], dtype=torch.float64)
    a, b, c = non_negative(pixels, torch.tensor([s for s, _ in measured], dtype=torch.float64))
    whole, beside = measured[areas.index((1.0, 1.0))]
    ungrounded = call(1.0, 1.0, grounding_fraction=0.0)[0] / whole
    d = max(0.0, call(1.0, 1.0, mis_fraction=1.0, mis_merge="regional")[0] - whole) / CALIBRATED

    def g(area: float) -> float:
        return a + b * area + c * area**2

    def predicted(number: int, size: tuple[int, int], settings: GenerationSettings) -> float:
        latent = (size[0] // latent_px, size[1] // latent_px)
        area = size[0] * size[1] / side**2
        steps, grounded = (
            settings.num_inference_steps,
            steps_in_fraction(settings.grounding_fraction, settings.num_inference_steps),
        )
        merge = merge_rule(bench_scene(number), settings, latent, factor)
        crops = [merge.crops[i].share(latent) if i in merge.crops else 1.0 for i in merge.instances]
        calls = len({tuple(crop.hold.shape) for crop in merge.crops.values()})  # those on the whole canvas join its own
        texts = d * area * number if settings.mis_merge == "regional" else 0.0
        branches = steps_before_merge(settings) * (a * calls + sum(g(area * crop) - a for crop in crops) + texts)
        return grounded * g(area) + (steps - grounded) * ungrounded * g(area) + branches + beside

    print(f"{options}, {torch.get_num_threads()} threads, {side} pixels")
    print(f"a guided call on A canvases: {a:.4f} + {b:.4f} A + {c:.4f} A^2 s; without instances {ungrounded:.2f} of it")
    print(f"`regional` adds {d:.4f} s for each instance; beside the calls {beside:.3f} s\n")
    print("| instances | pixels | steps | Multi-instance Sampler | measured, s | predicted, s | off by |")
    print("|---|---|---|---|---|---|---|")
    for number, height, width, steps, merge in POINTS[options.size]:
        settings = GenerationSettings(
            scheduler="ddim",
            guidance_scale=3.0,
            grounding_fraction=0.8,
            num_inference_steps=steps,
            mis_fraction=0.36 if merge else 0.0,
            **({"mis_merge": merge} if merge else {}),
        )
        seconds, size = take(number, height, width, settings)
        expected = predicted(number, size, settings)
        text = f"| {number} | {size[1]} x {size[0]} | {steps} | {merge or 'off'} | {seconds:.2f} | {expected:.2f} "
        print(f"{text}| {100 * (expected / seconds - 1):+.0f} % |", flush=True)


if __name__ == "__main__":
    main()
