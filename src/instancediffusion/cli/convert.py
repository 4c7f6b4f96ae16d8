"""`instancediffusion convert`: the weights people have -> a folder of safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from instancediffusion.adapter import InstanceAdapter


@click.command()
@click.argument("checkpoints", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--adapter-only", is_flag=True, help="Write the adapter alone, for use on another SD1.5 model.")
@click.option("--adapter", help="Folder, file or hub id of an adapter to write along with a model that brings none.")
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of the CLIP tokenizer to write along (checkpoints hold none).",
)
@click.option(
    "--dtype",
    type=click.Choice(["keep", "float32", "float16", "bfloat16"]),
    default="keep",
    show_default=True,
    help="Type of the written weights.",
)
@click.option(
    "--num-heads",
    type=click.IntRange(min=1),
    help="Attention heads of the UNet, which no file states. Default: those of its family (8 in Stable Diffusion 1.x).",
)
@click.option(
    "--prediction-type",
    type=click.Choice(["epsilon", "v_prediction"]),
    help="What a Stable Diffusion 2.x model in one file predicts. Default: v_prediction.",
)
def convert(
    checkpoints: tuple[Path, ...],
    out: Path,
    adapter_only: bool,
    adapter: str | None,
    tokenizer: Path | None,
    dtype: str,
    num_heads: int | None,
    prediction_type: str | None,
) -> None:
    """Convert CHECKPOINTS into the new folder OUT.

    CHECKPOINTS is one file: the published .pth, or a Stable Diffusion 1.x, 2.x or XL model (.safetensors, .ckpt). Or it
    is the three files that ComfyUI uses (fusers, positionnet, scaleu), or their folder, which make an adapter. Files
    are known by what they hold.

    They are read by a restricted unpickler: nothing in them is executed, and one that asks for more than tensors and
    plain containers is refused.
    """
    import torch
    from transformers import CLIPTokenizer

    from instancediffusion.checkpoints import (
        check_new_folder,
        open_weights,
        read_adapter,
        weights_sha256,
        write_adapter,
        write_folder,
    )

    check_new_folder(out)
    chosen = None if dtype == "keep" else getattr(torch, dtype)
    heads: dict[str, Any] = {"num_heads": num_heads}
    alone = len(checkpoints) > 1 or checkpoints[0].is_dir() or open_weights(checkpoints[0]).kind == "spliced"
    made: InstanceAdapter | None
    if alone:
        made = read_adapter(checkpoints[0] if len(checkpoints) == 1 else checkpoints, **heads)
        write_adapter(made, out, dtype=chosen)
    else:
        words = None if tokenizer is None else CLIPTokenizer.from_pretrained(tokenizer)
        components, brought = _components(checkpoints[0], prediction_type, heads)
        made = brought if adapter is None else read_adapter(adapter)
        if adapter_only and made is not None:
            write_adapter(made, out, dtype=chosen)
        else:
            write_folder(components, out, adapter=made, tokenizer=words, dtype=chosen)
    click.echo(f"{out}: written, weights sha256 {weights_sha256(out)}")
    if made is None:
        click.echo("no adapter: it is a stock model; pass --adapter here, or when it is used")
        return
    gates = [abs(value) for pair in made.gates().values() for value in pair]
    click.echo(f"gates: |tanh| {min(gates):.3f} to {max(gates):.3f} in {len(gates) // 2} layers")


def _components(path: Path, prediction_type: str | None, heads: dict[str, Any]) -> tuple[Any, InstanceAdapter | None]:
    """What a file holds, and the adapter if it brings one."""
    from instancediffusion.checkpoints import load_official, load_single_file, open_weights

    if open_weights(path).expect("published", "single_file").kind == "published":
        official = load_official(path, **heads)
        return official, official.adapter
    return load_single_file(path, prediction_type=prediction_type, **heads), None
