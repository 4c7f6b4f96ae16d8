"""What network calls and pictures cost on a GPU, beside stock Stable Diffusion of the same size on the same machine.

    python benchmarks/gpu.py                              # CUDA, less than five minutes
    python benchmarks/gpu.py --device cpu --size tiny     # does it run at all

Random weights. Three tables: calls by type, compiled or not, and batch, with the fraction of the roofline (their
multiplications at the rate of a large matrix product of the type) and the peak memory; the same by number of instances;
pictures of four objects by preset, and of a stock `StableDiffusionPipeline` at the same steps. What does not fit into
`--minutes` is left out, and said so.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from instancediffusion.adapter import InstanceAdapter
from instancediffusion.adapter.backbones import backbone_of
from instancediffusion.pipeline.random_weights import measured_pipeline, published_size
from instancediffusion.pipeline.timing import bench_scene


class Machine:
    """A device with a clock, its peak memory, and a time by which all has to be over."""

    def __init__(self, device: str, minutes: float) -> None:
        self.device = torch.device(device)
        self._end = time.monotonic() + 60 * minutes

    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self._end

    def wait(self) -> None:
        """Wait for all that is queued."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, run: Callable[[], object], repeats: int) -> float:
        """Median seconds, after two runs that are not counted (compiling, choosing kernels)."""
        found = []
        for turn in range(repeats + 2):
            self.wait()
            start = time.perf_counter()
            run()
            self.wait()
            if turn > 1:
                found.append(time.perf_counter() - start)
        return statistics.median(found)

    def peak_gib(self, run: Callable[[], object]) -> float:
        """Most memory of a run, in GiB; not known but on CUDA."""
        if self.device.type != "cuda":
            return float("nan")
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() / 2**30

    def rate(self, dtype: torch.dtype) -> float:
        """FLOP/s of a matrix product."""
        side = 8192 if self.device.type == "cuda" else 512
        a, b = torch.randn(2, side, side, device=self.device, dtype=dtype)
        return 2 * side**3 / self.seconds(lambda: a @ b, 5)


def networks(size: str, dtype: torch.dtype, device: torch.device) -> tuple[UNet2DConditionModel, InstanceAdapter]:
    """A grafted UNet of a size."""
    if size == "sd15":
        unet, adapter = published_size(dtype)
    else:
        unet = UNet2DConditionModel(
            sample_size=16, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8, cross_attention_dim=32,
            attention_head_dim=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        ).eval()  # fmt: skip
        adapter = InstanceAdapter.for_unet(unet, token_dim=32, caption_dim=32, hidden_dim=64).eval()
        adapter.graft(unet.to(dtype))
        adapter.to(dtype)
    return unet.to(device), adapter.to(device)


def call_of(
    unet: Any, network: Any, adapter: InstanceAdapter, batch: int, instances: int, grounded: bool = True
) -> Callable[[], object]:
    """One call for the same scene so many times over."""
    backbone, device, dtype = backbone_of(unet), unet.device, unet.dtype
    side, width = unet.config.sample_size, unet.config.cross_attention_dim
    scenes = [bench_scene(instances)] * batch
    captions = torch.randn(batch, instances, adapter.config.caption_dim, device=device, dtype=dtype)
    grounding = adapter(adapter.locations(scenes), captions, instance_mask="visibility")
    grounding = grounding.on_maps(backbone.map_sizes(unet, side, side)).scaled(float(grounded))
    x = torch.randn(batch, unet.config.in_channels, side, side, device=device, dtype=dtype)
    context, timestep = torch.randn(batch, 77, width, device=device, dtype=dtype), torch.tensor(500, device=device)
    keys = backbone.text_keys(unet, context)
    text_keys = None if keys is None else keys.of(range(batch), 77)
    return lambda: backbone.call(network, x, timestep, context, grounding, text_keys=text_keys)


def calls(machine: Machine, options: argparse.Namespace, dtype: torch.dtype) -> Iterator[str]:
    """Rows of the first two tables."""
    unet, adapter = networks(options.size, dtype, machine.device)
    name, rate = str(dtype).removeprefix("torch."), machine.rate(dtype)
    yield f"| {name}: a matrix product makes {rate / 1e12:.1f} TFLOP/s | | | | | |"
    for compiled in (False, True):
        network = torch.compile(unet, fullgraph=True) if compiled else unet
        for batch, instances in (*((size, 4) for size in options.batches), *((2, n) for n in options.instances)):
            if machine.over():
                yield "| out of time | | | | | |"
                return
            run = call_of(unet, network, adapter, batch, instances)
            with FlopCounterMode(display=False) as counter:
                call_of(unet, unet, adapter, batch, instances)()
            took = machine.seconds(run, options.repeats)
            fraction = counter.get_total_flops() / rate / took
            how = "compiled" if compiled else "eager"
            yield (
                f"| {name}, {how} | {batch} | {instances} | {1e3 * took:.1f} | {fraction:.2f} | "
                f"{machine.peak_gib(run):.2f} |"
            )
    adapter.remove()
    for batch in options.batches:
        x = torch.randn(batch, unet.config.in_channels, *[unet.config.sample_size] * 2).to(machine.device, dtype)
        context = torch.randn(batch, 77, unet.config.cross_attention_dim).to(machine.device, dtype)
        took = machine.seconds(lambda x=x, context=context: unet(x, 500, context), options.repeats)
        yield f"| {name}, stock UNet | {batch} | | {1e3 * took:.1f} | | |"


def pictures(machine: Machine, options: argparse.Namespace, dtype: torch.dtype) -> Iterator[str]:
    """Rows of the third table."""
    pipe = measured_pipeline("random" if options.size == "sd15" else "mini", dtype).to(machine.device)
    for preset in ("exact", "balanced", "fast"):
        for number in (1, 4, 16):
            if machine.over():
                yield "| out of time | | | |"
                return
            scene, nfe = bench_scene(number), []
            took = machine.seconds(
                lambda scene=scene, preset=preset, nfe=nfe: nfe.append(pipe(scene, preset=preset).network_rows), 1
            )
            yield f"| {preset} | {number} | {took:.2f} | {nfe[-1]:.1f} |"
        if preset == "balanced":
            steps = pipe(bench_scene(4), preset=preset).settings.num_inference_steps
            took = stock_seconds(pipe, steps, lambda run: machine.seconds(run, 1))
            yield f"| stock Stable Diffusion, {steps} steps | | {took:.2f} | {2 * steps} |"


def stock_seconds(pipe: Any, steps: int, measure: Callable[[Callable[[], object]], float]) -> float:
    """Seconds of a picture of the same parts in diffusers' own pipeline, without the adapter."""
    parts = {name: part for name, part in pipe.components.items() if name != "adapter"}
    pipe.adapter.remove()
    try:
        stock = StableDiffusionPipeline(**parts, requires_safety_checker=False)
        stock.set_progress_bar_config(disable=True)
        return measure(lambda: stock("objects in a meadow", num_inference_steps=steps))
    finally:
        pipe.adapter.graft(pipe.unet)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", choices=["sd15", "tiny"], default="sd15")
    parser.add_argument("--dtypes", nargs="+", default=["float16", "bfloat16"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--instances", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=4.5)
    options = parser.parse_args()
    machine = Machine(options.device, options.minutes)
    with torch.inference_mode():
        name = torch.cuda.get_device_name() if machine.device.type == "cuda" else "processor"
        print(f"{name}, torch {torch.__version__}, {options.size}\n")
        print("| call | batch | instances | ms | of the roofline | peak GiB |\n|---|---|---|---|---|---|")
        for kind in options.dtypes:
            for row in calls(machine, options, getattr(torch, kind)):
                print(row, flush=True)
    print("\n| picture | objects | seconds | NFE |\n|---|---|---|---|")
    for row in pictures(machine, options, getattr(torch, options.dtypes[0])):
        print(row, flush=True)


if __name__ == "__main__":
    main()
