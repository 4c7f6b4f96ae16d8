"""What the Multi-instance Sampler costs, by merge rule and number of instances.

    python benchmarks/merge_cost.py                        # mini
    python benchmarks/merge_cost.py --size sd15 --steps 2  # Stable Diffusion 1.5's size with random weights

For each rule and number: the median seconds of sampling, the same as a multiple of one instance's, and the network rows
that the law counts: 2 (S + M * sum of shares), with S steps, M of them before the merge, and the share of the canvas
that each instance is run on (1 under `mean`).
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from instancediffusion import Box, Instance, InstanceDiffusionPipeline, Scene
from instancediffusion.checkpoints import mini_folder
from instancediffusion.cli.bench import published_size

NAMES = ("panda", "castle", "tree", "house", "car", "apple", "vase", "robot")  # over and over


def scene(number: int) -> Scene:
    """So many overlapping boxes with sides from .2 to .4 of the canvas, the same first ones for any number."""
    rng = np.random.Generator(np.random.PCG64(8))
    instances = []
    for z in range(number):
        name = NAMES[z % len(NAMES)]
        side = rng.uniform(0.2, 0.4)
        x, y = rng.uniform(0, 1 - side, 2)
        instances.append(Instance(f"a {name}", box=Box(x, y, x + side, y + side), z_order=z))
    return Scene("objects in a meadow", tuple(instances), 512, 512)


def sd15_size(dtype: torch.dtype) -> InstanceDiffusionPipeline:
    """A pipeline of the published size with random weights; its text model has one layer, its autoencoder is small."""
    unet, adapter = published_size(dtype)
    adapter.remove()
    tokenizer = CLIPTokenizer.from_pretrained(mini_folder() / "tokenizer", model_max_length=77)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=768,
            num_hidden_layers=1,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    parts = {"vae": vae.to(dtype), "text_encoder": text.to(dtype), "tokenizer": tokenizer}
    return InstanceDiffusionPipeline(**parts, unet=unet, adapter=adapter, scheduler=DDIMScheduler())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["mini", "sd15"], default="mini")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--mis-fraction", type=float, default=0.36)
    parser.add_argument("--numbers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    pipe = sd15_size(dtype) if options.size == "sd15" else InstanceDiffusionPipeline.from_pretrained(torch_dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    print(f"{options}, {torch.get_num_threads()} threads")
    for rule in ("mean", "layered"):
        first = None
        for number in options.numbers:
            seconds, out = [], None
            for _ in range(options.repeats):
                start = time.perf_counter()
                out = pipe(
                    scene(number),
                    seed=0,
                    num_inference_steps=options.steps,
                    mis_fraction=options.mis_fraction,
                    mis_merge=rule,
                    guidance_scale=3.0,
                    instance_mask="visibility" if rule == "layered" else "none",
                )
                seconds.append(time.perf_counter() - start)
            median = statistics.median(seconds)
            first = first or median
            rows = out.network_rows if out is not None else 0
            print(f"{rule:8s} N = {number}: {median:7.2f} s, {median / first:.2f} of one, {rows:.1f} rows", flush=True)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
