"""The law of what a picture costs: seconds against instances, canvas and steps, measured and predicted.

    python benchmarks/cost_law.py          # count, measure and compare, on mini
    python benchmarks/cost_law.py --law    # count alone

A row is one latent through the network once. Its multiplications are a c + b c^2 + d n c, with c visual tokens of the
largest map and n grounding tokens: convolutions and linear maps, attention among visual tokens, and attention to
grounding tokens. They are counted at three sizes, which gives a, b and d. A picture costs its rows times that, and one
measured picture tells how many the machine makes in a second.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from instancediffusion import InstanceDiffusionPipeline
from instancediffusion.adapter import InstanceAdapter
from instancediffusion.adapter.backbones import backbone_of
from instancediffusion.pipeline.timing import bench_scene

SIZES = ((1, 4), (1, 16), (0.5, 4))
"""Sides of the canvas, as shares of the trained one, and instances, from which a, b and d are had."""


@dataclass(frozen=True)
class Law:
    """FLOPs of a row: `linear` c + `square` c^2 + `told` n c."""

    linear: float
    square: float
    told: float

    def row(self, tokens: int, grounding: int) -> float:
        """FLOPs of a row."""
        return self.linear * tokens + self.square * tokens**2 + self.told * grounding * tokens


def flops(unet: UNet2DConditionModel, adapter: InstanceAdapter, side: int, instances: int) -> tuple[float, int]:
    """FLOPs of a row, and its grounding tokens."""
    backbone = backbone_of(unet)
    scene, config = bench_scene(instances), unet.config
    told = adapter(adapter.locations([scene]), torch.zeros(1, instances, adapter.config.caption_dim))
    x, context = torch.zeros(1, config.in_channels, side, side), torch.zeros(1, 77, config.cross_attention_dim)
    with FlopCounterMode(display=False) as counter:
        backbone.call(
            unet, x, torch.tensor(500), context, told, text_keys=backbone.text_keys(unet, context).of([0], 77)
        )
    return float(counter.get_total_flops()), told.log_weight.shape[1]


def law_of(unet: UNet2DConditionModel, adapter: InstanceAdapter) -> Law:
    """The law of a network, from three counts."""
    whole = unet.config.sample_size
    rows, counted = [], []
    for share, instances in SIZES:
        side = int(share * whole)
        found, grounding = flops(unet, adapter, side, instances)
        rows.append((side**2, side**4, grounding * side**2))
        counted.append(found)
    return Law(*np.linalg.solve(np.array(rows, float), np.array(counted)).tolist())


def main() -> None:
    """Count, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--law", action="store_true", help="count only")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    pipe = InstanceDiffusionPipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    with torch.inference_mode():
        law = law_of(pipe.unet, pipe.adapter)
    print(f"mini: a = {law.linear / 1e6:.2f}, b = {law.square:.0f} / 1e6, d = {law.told:.0f} / 1e6 MFLOP", law)
    if options.law:
        return
    side = pipe.unet.config.sample_size
    cases = [(4, side, 16, 0.0), (1, side, 16, 0.0), (16, side, 16, 0.0), (4, side, 8, 0.0), (4, side, 32, 0.0)]
    cases += [(4, side // 2 * 3, 16, 0.0), (4, side * 2, 16, 0.0), (4, side, 16, 0.36), (16, side, 16, 0.36)]
    print(f"{torch.get_num_threads()} threads\n")
    print(
        "| objects | canvas | steps | share alone | rows | seconds | predicted | |\n|---|---|---|---|---|---|---|---|"
    )
    rate = 0.0
    for number, cells, steps, alone in cases:
        scene, px, took = bench_scene(number), cells * pipe.latent_px, []
        asked = {"num_inference_steps": steps, "mis_fraction": alone, "mis_merge": "layered", "output_type": "latent"}
        for turn in range(options.repeats + 1):
            start = time.perf_counter()
            out = pipe(scene, seed=0, height=px, width=px, **asked)
            if turn:
                took.append(time.perf_counter() - start)
        seconds, grounding = statistics.median(took), 4 * (number + 1)
        work = out.network_rows * law.row(cells**2, grounding)
        rate = rate or work / seconds
        print(
            f"| {number} | {px} | {steps} | {alone} | {out.network_rows:.1f} | {seconds:.2f} | {work / rate:.2f} | "
            f"{seconds / (work / rate):.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
