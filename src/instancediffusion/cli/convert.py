"""`instancediffusion convert`: the published checkpoint -> a folder of safetensors."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--adapter-only", is_flag=True, help="Write the adapter alone, for use on another SD1.5 model.")
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of the CLIP tokenizer to write along (the checkpoint holds none).",
)
@click.option(
    "--dtype",
    type=click.Choice(["keep", "float32", "float16", "bfloat16"]),
    default="keep",
    show_default=True,
    help="Type of the written weights.",
)
@click.option(
    "--num-heads", type=click.IntRange(min=1), default=8, show_default=True, help="Attention heads of the UNet."
)
def convert(
    checkpoint: Path, out: Path, adapter_only: bool, tokenizer: Path | None, dtype: str, num_heads: int
) -> None:
    """Convert CHECKPOINT (.pth in the published layout) into the new folder OUT.

    The file is read by a restricted unpickler: nothing in it is executed, and one that asks for more than
    tensors and plain containers is refused.
    """
    import torch
    from transformers import CLIPTokenizer

    from instancediffusion.checkpoints import check_new_folder, load_official, weights_sha256, write_folder

    check_new_folder(out)
    words = None if tokenizer is None else CLIPTokenizer.from_pretrained(tokenizer)
    components = load_official(checkpoint, num_heads=num_heads)
    write_folder(
        components,
        out,
        adapter_only=adapter_only,
        tokenizer=words,
        dtype=None if dtype == "keep" else getattr(torch, dtype),
    )
    gates = [abs(value) for pair in components.adapter.gates().values() for value in pair]
    click.echo(f"{out}: written, weights sha256 {weights_sha256(out)}")
    click.echo(f"gates: |tanh| {min(gates):.3f} to {max(gates):.3f} in {len(gates) // 2} layers")
