"""`instancediffusion bench`: what a UNet call costs on this machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from instancediffusion.presets import PRESETS

from .click_types import Names

if TYPE_CHECKING:
    pass


@click.command()
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Type of the model's numbers.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the matrix library; default: its own choice.")
@click.option("--calls", type=click.IntRange(min=1), default=3, show_default=True, help="Timed calls of each kind.")
@click.option("--instances", type=click.IntRange(min=0), default=4, show_default=True, help="Instances of the scene.")
@click.option("--side", type=click.IntRange(min=8), default=64, show_default=True, help="Side of the latents.")
@click.option(
    "--preset",
    "presets",
    type=Names(PRESETS),
    multiple=True,
    help="Time pictures in place of calls: with this preset and with each of its changes alone; repeatable.",
)
@click.option(
    "--model", default="mini", show_default=True, help="With --preset: what draws. random = random weights, 512 pixels."
)
@click.option("--lora", help="With --preset: a LoRA file distilled to few steps, with which presets are timed, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def bench(
    dtype: str,
    threads: int | None,
    calls: int,
    instances: int,
    side: int,
    presets: tuple[str, ...],
    model: str,
    lora: str | None,
    as_json: bool,
) -> None:
    """Time the grafted UNet at the size of Stable Diffusion 1.5 with random weights, batch 1.

    Prints the median seconds of each kind of call and the peak memory of the process. With --preset, whole pictures of
    --model: seconds, the fraction of the time with the model's own settings, NFE, and by how much the picture is
    another (root mean square of 0 to 255).
    """
    import torch

    from instancediffusion.pipeline.random_weights import published_size
    from instancediffusion.pipeline.timing import median_seconds, peak_gib, unet_calls

    if threads is not None:
        torch.set_num_threads(threads)
    if presets:
        _pictures(dtype, calls, instances, presets, model, lora, as_json)
        return
    unet, adapter = published_size(getattr(torch, dtype))
    parameters = sum(p.numel() for part in (unet, adapter) for p in part.parameters()) / 1e6
    if not as_json:
        click.echo(
            f"SD1.5 size, {parameters:.0f} M parameters, {dtype}, {torch.get_num_threads()} threads, "
            f"latents {side}x{side}, {instances} instances, median of {calls}"
        )
        click.echo(f"{'peak memory after loading':32s} {peak_gib():6.2f} GiB")
    figures: dict[str, float] = {"gib_after_loading": peak_gib()}
    for name, run in unet_calls(unet, adapter, instances, side):
        figures[name] = median_seconds(run, calls)
        if not as_json:
            click.echo(f"{name:32s} {figures[name]:6.3f} s")
    figures["peak_gib"] = peak_gib()
    if as_json:
        setting = {"dtype": dtype, "threads": torch.get_num_threads(), "instances": instances, "side": side}
        click.echo(json.dumps({**setting, "parameters_millions": parameters, "calls": calls, **figures}, indent=2))
    else:
        click.echo(f"{'peak memory':32s} {figures['peak_gib']:6.2f} GiB")


def _pictures(
    dtype: str, calls: int, instances: int, presets: tuple[str, ...], model: str, lora: str | None, as_json: bool
) -> None:
    import torch

    from instancediffusion.pipeline.random_weights import measured_pipeline
    from instancediffusion.pipeline.timing import bench_scene, pictures

    pipeline = measured_pipeline(model, getattr(torch, dtype))
    setting = {"model": model, "dtype": dtype, "threads": torch.get_num_threads(), "instances": instances}
    if not as_json:
        click.echo(f"{model}, {dtype}, {setting['threads']} threads, {instances} instances, median of {calls}")
        click.echo(f"{'':44s} {'seconds':>8s} {'share':>6s} {'rows':>7s} {'change':>7s}")
    found = []
    for row in pictures(pipeline, bench_scene(instances), presets, repeats=calls, lora=lora):
        found.append(row.values())
        if not as_json:
            click.echo(f"{row.name:44s} {row.seconds:8.3f} {row.share:6.2f} {row.rows:7.1f} {row.change:7.1f}")
    if as_json:
        click.echo(json.dumps({**setting, "calls": calls, "pictures": found}, indent=2))
