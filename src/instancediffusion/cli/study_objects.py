"""`instancediffusion study captions` and `study seeds`: one object in a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .judge import JUDGE
from .libraries import quieten_libraries
from .progress import Countdown

if TYPE_CHECKING:
    from instancediffusion.projects.overlap_study.object_runs import Drawn

_COUNT = click.IntRange(min=1)
_MODEL = click.option("--model", default="mini", show_default=True, help="mini, a folder or a hub id.")
_OUTPUT = click.option(
    "-o", "--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to fill."
)
_DEVICE = click.option("--device", default="cpu", show_default=True, help="Where the model runs.")
_BATCH = click.option("--batch-size", type=_COUNT, default=4, show_default=True, help="Pictures made together.")
_OVERWRITE = click.option("--overwrite", is_flag=True, help="Make pictures again that are there with other settings.")
_QUIET = click.option("--quiet", is_flag=True, help="Print nothing but errors.")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_MODEL
@JUDGE
@_OUTPUT
@_BATCH
@_DEVICE
@_OVERWRITE
@_QUIET
def captions(
    file: Path,
    model: str,
    judge_folder: Path,
    output: Path,
    batch_size: int,
    device: str,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Draw captions in users' own words: is what they name there?

    FILE is a JSON list of {"caption": "a sleepy kitten", "class": "cat"}, such as benchmarks/everyday_captions.json;
    the class is one of the synthetic world. Each is drawn alone in a box. OUTPUT gets the pictures, report.json,
    report.md and captions.jsonl, a line for each caption with the detection at its location.
    """
    quieten_libraries(bars=False)
    from instancediffusion.projects.emoji_judge import Judge
    from instancediffusion.projects.overlap_study.object_runs import run_captions

    drawn = _drawn(model, output, batch_size, device, overwrite, quiet)
    right = run_captions(file, Judge.load(judge_folder), drawn)
    if not quiet:
        click.echo(f"right class of all: {right:.3f}")
        click.echo(str(output / "report.md"))


@click.command()
@_MODEL
@_OUTPUT
@click.option("--objects", type=_COUNT, default=8, show_default=True, help="Captions, each with a box of its own.")
@click.option("--seeds", type=click.IntRange(min=2), default=32, show_default=True, help="Pictures of each.")
@_BATCH
@_DEVICE
@_OVERWRITE
@_QUIET
def seeds(
    model: str, output: Path, objects: int, seeds: int, batch_size: int, device: str, overwrite: bool, quiet: bool
) -> None:
    """How far do the pictures of one caption in one box differ, beside the world's own pictures of it?

    OUTPUT gets the pictures and seeds.json: for each caption the mean distance of two pictures within the box, of the
    model and of the world.
    """
    quieten_libraries(bars=False)
    from instancediffusion.projects.overlap_study.object_runs import run_seeds

    for line in run_seeds(objects, seeds, _drawn(model, output, batch_size, device, overwrite, quiet)):
        if not quiet:
            click.echo(line)


def _drawn(model: str, output: Path, batch_size: int, device: str, overwrite: bool, quiet: bool) -> Drawn:
    from instancediffusion.projects.overlap_study.object_runs import Drawn

    return Drawn(
        model,
        output,
        batch_size=batch_size,
        device=device,
        overwrite=overwrite,
        progress=lambda what, total: Countdown(what, total, quiet=quiet),
    )
