"""How far pictures in bfloat16 are from those in float32: final latents and pixels, by preset.

    python benchmarks/half.py                                  # mini, its demo and three more scenes, four seeds each

Of each picture the relative error |x - y| / |y| of the final latents, y in float32, and the root mean square of the
difference of pixels, 0 to 255; means over pictures, and the worst.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np
import torch

from instancediffusion import InstanceDiffusionPipeline, load_scene
from instancediffusion.pipeline.timing import bench_scene

DEMO = Path(__file__).resolve().parents[1] / "examples" / "demo.json"


def main() -> None:
    """Draw and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--presets", nargs="+", default=["", "balanced", "fast"], help="'' = the model's own settings")
    options = parser.parse_args()
    scenes = [load_scene(DEMO), *(bench_scene(number) for number in (1, 2, 3))]
    pipes = [
        InstanceDiffusionPipeline.from_pretrained(options.model, torch_dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    ]
    for pipe in pipes:
        pipe.set_progress_bar_config(disable=True)
    print(f"{options}\n\n| settings | latents, relative | worst | pixels, rms | worst |\n|---|---|---|---|---|")
    for preset in options.presets:
        latents, pixels = [], []
        for scene in scenes:
            exact, half = (pipe(scene, seed=list(range(options.seeds)), preset=preset or None) for pipe in pipes)
            for k in range(options.seeds):
                y, x = exact.latents[k].float(), half.latents[k].float()
                latents.append(float((x - y).norm() / y.norm()))
                a, b = (np.asarray(out.images[k], dtype=float) for out in (exact, half))
                pixels.append(float(np.sqrt(np.square(a - b).mean())))
        found = [value for own in (latents, pixels) for value in (statistics.mean(own), max(own))]
        print(f"| {preset or 'its own'} | " + " | ".join(f"{value:.3f}" for value in found) + " |", flush=True)


if __name__ == "__main__":
    main()
