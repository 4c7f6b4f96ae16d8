"""Our network call beside the published code's, at Stable Diffusion 1.5's size, in one process.

    git clone https://github.com/frank-xwang/InstanceDiffusion
    pip install einops
    python benchmarks/against_published.py --repository InstanceDiffusion

The published `UNetModel` runs as it is (its configuration test_box.yaml; of `timm` it takes two small names, which are
given to it here, and it is kept from downloading ImageNet weights), with weights drawn at random. Ours has random
weights of the same sizes. All cases take turns, `--repeats` times; medians. `--clock cpu` counts the process's own
seconds of processor time, which other programs on the machine disturb less: with one thread alone.

Below the table stand pictures. By the calls that either makes and what they took: 50 PLMS steps with grounding in .8 of
them. And those of a preset of four instances with their order, which are made in the same process (`--preset fast`),
beside the published picture with its Multi-instance Sampler, by the calls that makes.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from instancediffusion.adapter.deep_cache import OuterBlocks
from instancediffusion.conditioning import LocationTensors
from instancediffusion.pipeline.random_weights import PUBLISHED_SEGMENTATION, pipeline_round
from instancediffusion.pipeline.timing import bench_scene

SLOTS, STEPS, GROUNDED, PER_INSTANCE = 30, 50, 40, 18
"""Of the published code: slots, steps, those with grounding (.8), and those with per-instance branches (.36)."""


def fill(module: nn.Module) -> nn.Module:
    """Cheap random weights: one block of numbers over and over."""
    numbers = 0.02 * torch.randn(1_000_003, generator=torch.Generator().manual_seed(0))
    for parameter in module.parameters():
        flat = parameter.data.view(-1)
        for start in range(0, len(flat), len(numbers)):
            part = flat[start : start + len(numbers)]
            part.copy_(numbers[: len(part)])
    return module.eval().requires_grad_(False)


def published(repository: Path) -> Callable[[bool], Tensor]:
    """The published network as a call, conditional or not."""
    for name in ("timm", "timm.models", "timm.models.layers", "timm.models.registry"):
        sys.modules[name] = ModuleType(name)
    layers: Any = sys.modules["timm.models.layers"]
    layers.trunc_normal_, layers.DropPath = nn.init.trunc_normal_, nn.Identity
    sys.modules["timm.models.registry"].register_model = lambda builder: builder  # type: ignore[attr-defined]
    torch.hub.load_state_dict_from_url = lambda *_, **__: {"model": {}}
    if not hasattr(torch.backends.cuda, "sdp_kernel"):  # gone from newer versions of torch
        torch.backends.cuda.sdp_kernel = lambda **_: nullcontext()
    sys.path.insert(0, str(repository))
    from grounding_input.text_grounding_tokinzer_input import GroundingNetInput
    from ldm.modules.diffusionmodules.openaimodel import UNetModel

    tokenizer = {
        "target": "ldm.modules.diffusionmodules.text_grounding_net.UniFusion",
        "params": {"in_dim": 768, "out_dim": 768, "mid_dim": 3072, "test_drop_masks": True},
    }
    # Without initialising a billion numbers that are written over.
    with init_empty_weights():
        shapes = _unet(UNetModel, tokenizer)
    model = fill(shapes.to_empty(device="cpu"))
    given = {
        "boxes": torch.rand(1, SLOTS, 4),
        "masks": torch.cat([torch.ones(1, 4), torch.zeros(1, SLOTS - 4)], 1),
        "text_embeddings": torch.randn(1, SLOTS, 768),
        "scribbles": torch.zeros(1, SLOTS, 40),
        "polygons": torch.zeros(1, SLOTS, 512),
        "segs": torch.zeros(1, SLOTS, 512, 512),
        "points": torch.rand(1, SLOTS, 2),
    }
    model.grounding_tokenizer_input = GroundingNetInput()
    grounding = model.grounding_tokenizer_input.prepare(given)
    inputs = {"x": torch.randn(1, 4, 64, 64), "timesteps": torch.tensor([500]), "context": torch.randn(1, 77, 768)}

    def call(conditional: bool) -> Tensor:
        answer: Tensor = model({**inputs, "grounding_input": grounding} if conditional else dict(inputs))
        return answer

    return call


def _unet(kind: Any, tokenizer: Mapping[str, Any]) -> Any:
    return kind(
        image_size=64,
        in_channels=4,
        out_channels=4,
        model_channels=320,
        attention_resolutions=[4, 2, 1],
        num_res_blocks=2,
        channel_mult=[1, 2, 4, 4],
        num_heads=8,
        transformer_depth=1,
        context_dim=768,
        fuser_type="gatedSA",
        use_checkpoint=True,
        sd_v1_5=True,
        efficient_attention=True,
        grounding_tokenizer=tokenizer,
    )


def ours(
    dtype: torch.dtype, precision: str | None = None
) -> tuple[dict[str, Callable[[], object]], Callable[..., Any]]:
    """Our calls by name, by OpenVINO in a precision or by torch; and what makes a picture with the same network."""
    from diffusers import UNet2DConditionModel

    from instancediffusion.adapter import InstanceAdapter
    from instancediffusion.adapter.backbones import backbone_of

    with init_empty_weights():
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        adapter = InstanceAdapter.for_unet(unet, segmentation=PUBLISHED_SEGMENTATION)
    for part in (unet, adapter):
        fill(part.to_empty(device="cpu").to(dtype))
    adapter.graft(unet)
    backbone = backbone_of(unet)
    scene = bench_scene(4)
    x, context = torch.randn(1, 4, 64, 64).to(dtype), torch.randn(1, 77, 768).to(dtype)
    with torch.inference_mode():
        given = adapter(adapter.locations([scene]), torch.randn(1, 4, 768).to(dtype), instance_mask="none")
        null = adapter(LocationTensors.empty(1), torch.zeros(1, 0, 768).to(dtype), instance_mask="none")
    keys = backbone.text_keys(unet, context)

    def call(grounding: Any, network: Any = unet) -> Tensor:
        timestep = torch.tensor(500)
        text_keys = None if keys is None else keys.of([0], 77)
        answer: Tensor = backbone.call(network, x, timestep, context, grounding, text_keys=text_keys)
        return answer

    blocks, features = OuterBlocks(unet), []

    def outer() -> Tensor:
        if not features:
            keep = []
            call(given, lambda *a, **k: keep.append(blocks.whole(unet, *a, **k)) or keep[0][0])
            features.append(keep[0][1])
        return call(given, lambda *a, **k: blocks.outer(features[0], *a, **k))

    named = {
        "conditional": lambda: call(given),
        "unconditional": lambda: call(null),
        "without grounding": lambda: call(given.scaled(0)),
        "outer blocks alone": outer,
    }
    if precision is not None:
        from instancediffusion.adapter.openvino import OpenVINOCall

        unet._compiled_call_impl = compiled = OpenVINOCall(unet, precision=precision)
        if precision == "int8":
            with torch.inference_mode(), compiled.measuring() as ranges:
                call(given)
            compiled.quantize(ranges)
        del named["outer blocks alone"]

    def picture(preset: str, **options: Any) -> Any:
        pipe = pipeline_round(unet, adapter)
        pipe.set_progress_bar_config(disable=True)
        return pipe(scene, preset=preset, seed=0, output_type="latent", **options)

    return named, picture


def rate(dtype: torch.dtype, clock: Callable[[], float]) -> float:
    """GFLOP/s of a matrix product of a call's size."""
    a, b = torch.randn(4096, 1280).to(dtype), torch.randn(1280, 1280).to(dtype)
    found = []
    for _ in range(6):
        start = clock()
        torch.nn.functional.linear(a, b)
        found.append(clock() - start)
    return 2 * 4096 * 1280 * 1280 / min(found) / 1e9


def calls(instances: int) -> int:
    """Network calls of the published picture with its Multi-instance Sampler."""
    return 2 * ((instances + 1) * (PER_INSTANCE + 1) + STEPS - PER_INSTANCE)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, help="a clone of the published code; without it, ours alone")
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument(
        "--openvino", nargs="+", default=[], choices=["float32", "bfloat16", "int8"], help="ours by OpenVINO"
    )
    parser.add_argument("--cases", nargs="+", help="the calls to make; all, where memory allows")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--preset", nargs="*", default=[], help="pictures that are made at the end")
    parser.add_argument("--merge", help="mis_merge of these, in place of the preset's")
    parser.add_argument("--when", type=Path, help="wait for this file before measuring, to load beforehand")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    cases: dict[tuple[str, str], Callable[[], object]] = {}
    # Not in inference mode: weights that are made in it are kept from being transformed.
    makers = {}
    if options.repository is not None:
        network = published(options.repository)
        cases["published float32", "conditional"] = lambda: network(True)
        cases["published float32", "unconditional"] = lambda: network(False)
    for name in options.dtypes:
        own, makers[name] = ours(getattr(torch, name))
        cases |= {(f"ours {name}", case): run for case, run in own.items()}
    for name in options.openvino:
        dtype = torch.float32 if name == "int8" else getattr(torch, name)
        own, makers[f"{name}, OpenVINO"] = ours(dtype, name)
        cases |= {(f"ours {name}, OpenVINO", case): run for case, run in own.items()}
    cases = {key: run for key, run in cases.items() if options.cases is None or key[1] in options.cases}
    with torch.inference_mode():
        while options.when is not None and not options.when.exists():
            time.sleep(1)
        took: dict[tuple[str, str], list[float]] = {key: [] for key in cases}
        for turn in range(options.repeats + 1):  # the first is not counted
            for key, run in cases.items():
                start = clock()
                run()
                seconds = clock() - start
                print(f"turn {turn}: {', '.join(key)} {seconds:.3f} s", file=sys.stderr, flush=True)
                if turn:
                    took[key].append(seconds)
        rates = ", ".join(f"{rate(getattr(torch, n), clock):.0f} GFLOP/s in {n}" for n in ("float32", "bfloat16"))
    print(f"{options.threads} threads, {options.clock} clock, median of {options.repeats}; matrix product {rates}\n")
    medians = {key: statistics.median(values) for key, values in took.items()}
    report(medians)
    for preset in options.preset:
        for name, picture in makers.items():
            start = clock()
            out = picture(preset, **({"mis_merge": options.merge} if options.merge else {}))
            report_preset(f"{preset} {name}", clock() - start, out.network_rows, medians)
    print(f"\npeak memory of all together {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


def report(seconds: Mapping[tuple[str, str], float]) -> None:
    """Print the tables."""
    base = seconds.get(("published float32", "conditional"))
    print("| call | seconds | the published conditional call is so many times as long |\n|---|---|---|")
    for (who, case), value in seconds.items():
        print(f"| {who}, {case} | {value:.3f} | {'' if base is None else f'{base / value:.2f}'} |")
    if base is None or ("published float32", "unconditional") not in seconds:
        return
    pair = base + seconds["published float32", "unconditional"]
    print("\n| picture, by calls | published, s | ours, s | times |\n|---|---|---|---|")
    for name in dict.fromkeys(who for who, _ in seconds if who.startswith("ours")):
        own = {case: value for (who, case), value in seconds.items() if who == name}
        if not {"conditional", "unconditional", "without grounding"} <= set(own):
            continue
        both = own["conditional"] + own["unconditional"]
        plain = (GROUNDED + 1) * both + (STEPS - GROUNDED) * 2 * own["without grounding"]
        whole = (STEPS + 1) * pair
        print(f"| 50 PLMS steps, grounding .8, {name} | {whole:.0f} | {plain:.0f} | {whole / plain:.2f} |")


def report_preset(name: str, seconds: float, nfe: float, medians: Mapping[tuple[str, str], float]) -> None:
    """Print what a picture took beside what the published one with its Multi-instance Sampler takes."""
    print(f"\n{name}: {seconds:.0f} s, {nfe:.1f} NFE, four instances")
    published_calls = [medians.get(("published float32", case)) for case in ("conditional", "unconditional")]
    if published_calls[0] is None or published_calls[1] is None:
        return
    mean = (published_calls[0] + published_calls[1]) / 2
    for number in (3, 4, 6):
        count = calls(number)
        print(
            f"published, {number} instances: {count} calls, {count * mean:.0f} s: {count / nfe:.1f} times the NFE, "
            f"{count * mean / seconds:.1f} times the seconds"
        )


if __name__ == "__main__":
    main()
