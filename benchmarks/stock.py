"""A picture of four instances beside one of stock Stable Diffusion: the same network, steps and machine.

    python benchmarks/stock.py --preset balanced --steps 5                     # Stable Diffusion 1.5's size
    python benchmarks/stock.py --size mini --preset balanced

`StableDiffusionPipeline` of diffusers draws the prompt only, with guidance in all steps, with the same parts and
without the adapter; ours draws the scene with a preset. They take turns. Both make the same number of steps, and a few
show the ratio: settings that are fractions of the steps scale along. Weights of Stable Diffusion 1.5's size are random.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import torch
from gpu import stock_seconds

from instancediffusion.pipeline.random_weights import measured_pipeline
from instancediffusion.pipeline.timing import bench_scene


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["sd15", "mini"], default="sd15")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--instances", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--merge", help="mis_merge, in place of the preset's")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: with one thread alone")
    options = parser.parse_args()
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    merge = {} if options.merge is None else {"mis_merge": options.merge}
    dtype = getattr(torch, options.dtype)
    pipe = measured_pipeline("random" if options.size == "sd15" else options.size, dtype)
    scene, nfe = bench_scene(options.instances), 0.0

    def clocked(run: Callable[[], object]) -> float:
        start = clock()
        run()
        return clock() - start

    def ours() -> None:
        nonlocal nfe
        out = pipe(
            scene, preset=options.preset, num_inference_steps=options.steps, seed=0, output_type="latent", **merge
        )
        nfe = out.network_rows

    stock_seconds(pipe, 1, clocked)
    pipe(scene, preset=options.preset, num_inference_steps=1, output_type="latent")
    pairs = [(stock_seconds(pipe, options.steps, clocked), clocked(ours)) for _ in range(options.repeats)]
    theirs, own = (statistics.median(values) for values in zip(*pairs, strict=True))
    print(f"{options}, {torch.get_num_threads()} threads")
    print(f"stock {theirs:.2f} s ({2 * options.steps} NFE), ours {own:.2f} s ({nfe:.1f} NFE): {own / theirs:.2f}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
