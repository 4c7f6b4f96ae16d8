"""Pictures a second that a process makes of one scene after another, by batch size.

    python benchmarks/rate.py                                    # mini, its demo's four objects, 32 pictures
    python benchmarks/rate.py --dtype bfloat16 --preset balanced

The model is loaded and has made one batch before the clock starts.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from instancediffusion import InstanceDiffusionPipeline, load_scene

DEMO = Path(__file__).resolve().parents[1] / "examples" / "demo.json"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--preset")
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: with one thread alone")
    options = parser.parse_args()
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    pipe = InstanceDiffusionPipeline.from_pretrained(options.model, torch_dtype=getattr(torch, options.dtype))
    pipe.set_progress_bar_config(disable=True)
    scene = load_scene(DEMO)
    print(f"{options}, {torch.get_num_threads()} threads\n")
    print("| batch | pictures/s | seconds each |\n|---|---|---|")
    for size in options.batches:
        pipe(scene, seed=list(range(size)), preset=options.preset)
        start = clock()
        for first in range(0, options.pictures, size):
            count = min(size, options.pictures - first)
            pipe(scene, seed=list(range(first, first + count)), preset=options.preset)
        took = clock() - start
        print(f"| {size} | {options.pictures / took:.2f} | {took / options.pictures:.3f} |", flush=True)


if __name__ == "__main__":
    main()
