"""What the Multi-instance Sampler costs, by merge rule and number of instances.

    python benchmarks/merge_cost.py                        # mini
    python benchmarks/merge_cost.py --size sd15 --steps 2  # Stable Diffusion 1.5's size with random weights

For each rule and number: the median seconds of sampling, the same as a multiple of one instance's, and the NFE
(network function evaluations): 2 (S + M * sum of fractions), with S steps, M of them before the merge, and the fraction
of the canvas that each per-instance branch is run on (1 under `mean`; under `regional` there are none).
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time

import torch

from instancediffusion.pipeline.random_weights import measured_pipeline
from instancediffusion.pipeline.timing import bench_scene


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["mini", "sd15"], default="mini")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--mis-fraction", type=float, default=0.36)
    parser.add_argument("--rules", nargs="+", default=["mean", "layered", "regional"])
    parser.add_argument("--numbers", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: with one thread alone")
    options = parser.parse_args()
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    dtype = getattr(torch, options.dtype)
    pipe = measured_pipeline("random" if options.size == "sd15" else options.size, dtype)
    print(f"{options}, {torch.get_num_threads()} threads")
    pipe.set_progress_bar_config(disable=True)
    pipe(bench_scene(1), seed=0, num_inference_steps=1, mis_fraction=0.0)  # is not counted
    for rule in options.rules:
        first = None
        for number in options.numbers:
            seconds, out = [], None
            for _ in range(options.repeats):
                start = clock()
                out = pipe(
                    bench_scene(number),
                    seed=0,
                    num_inference_steps=options.steps,
                    mis_fraction=options.mis_fraction,
                    mis_merge=rule,
                    guidance_scale=3.0,
                    instance_mask="none" if rule == "mean" else "visibility",
                )
                seconds.append(clock() - start)
            median = statistics.median(seconds)
            first = first or median
            nfe = out.network_rows if out is not None else 0
            print(f"{rule:8s} N = {number}: {median:7.2f} s, {median / first:.2f} of one, {nfe:.1f} NFE", flush=True)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
