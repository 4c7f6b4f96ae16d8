"""What merging visual tokens saves of one attention layer, and a small decoder of decoding, at Stable Diffusion's size.

    python benchmarks/tokens_and_decoders.py

The attention is that of the largest map of Stable Diffusion 1.5 (64x64 visual tokens, 320 channels, 8 heads), of four
instances; a UNet call has ten such, five of them gated. The decoders are the autoencoder of Stable Diffusion and
`AutoencoderTiny`, random weights, a picture of `--side` pixels. Best of three, one thread, processor time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.models.attention_processor import Attention

from instancediffusion.adapter.kernels import attention
from instancediffusion.adapter.token_merging import TokenMerging
from instancediffusion.pipeline.layers import latent_locations
from instancediffusion.pipeline.timing import bench_scene

SIZE, CHANNELS, HEADS = (64, 64), 320, 8


def seconds(run: Callable[[], object]) -> float:
    """The least processor time of three runs, after one that is not counted."""
    found = []
    for _ in range(4):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return min(found[1:])


def layer(dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    """A self-attention as the UNet computes it."""
    own = Attention(CHANNELS, heads=HEADS, dim_head=CHANNELS // HEADS).to(dtype)

    def run(rows: torch.Tensor) -> torch.Tensor:
        parts = [part(rows).unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (own.to_q, own.to_k, own.to_v)]
        out: torch.Tensor = own.to_out[0](attention(*parts).transpose(1, 2).flatten(2))
        return out

    return run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    locations = latent_locations(bench_scene(4), SIZE)
    print("| attention over 4,096 visual tokens | seconds | saved |\n|---|---|---|")
    with torch.inference_mode():
        for dtype in (torch.float32, torch.bfloat16):
            rows, attend = torch.randn(1, SIZE[0] * SIZE[1], CHANNELS).to(dtype), layer(dtype)
            whole = seconds(lambda rows=rows, attend=attend: attend(rows))
            print(f"| {dtype} | {whole:.3f} | |", flush=True)
            for fraction in (0.25, 0.5, 0.7):
                merging = TokenMerging(fraction, locations).on_maps([SIZE]).on_map(*SIZE)

                def merged(rows=rows, attend=attend, merging=merging) -> object:  # type: ignore[no-untyped-def]
                    return merging.of(rows).attended(rows, lambda _, own: attend(own))

                took = seconds(merged)
                print(f"| the same, {fraction} merged | {took:.3f} | {whole - took:.3f} |", flush=True)
        side = options.side // 8
        widths = (128, 256, 512, 512)
        stock = AutoencoderKL(
            block_out_channels=widths,
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * len(widths),
            up_block_types=("UpDecoderBlock2D",) * len(widths),
        )
        latents = torch.randn(1, 4, side, side)
        for name, vae in (("AutoencoderKL", stock.eval()), ("AutoencoderTiny", AutoencoderTiny().eval())):
            took = seconds(lambda vae=vae: vae.decode(latents))
            print(f"{name}, {options.side} pixels: {took:.2f} s", flush=True)


if __name__ == "__main__":
    main()
