"""`instancediffusion dataset`: labelled pictures made from a spec."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from instancediffusion.choices import precision_fact

from .click_types import Group, Output, Source
from .libraries import quieten_libraries, uncollected
from .model_options import engine_options, model_options
from .progress import Reporter, echo
from .settings_options import settings_of, settings_options

if TYPE_CHECKING:
    from instancediffusion.ray_pool import RayOptions
    from instancediffusion.synthesis import MadeDataset

_COUNT = click.IntRange(min=1)


@click.group(cls=Group)
def dataset() -> None:
    """Make labelled pictures: scenes from a spec, pictures of a model, labels for free."""


@dataset.command()
@click.argument("spec", type=Source(dir_okay=False))
@click.option("-o", "--output", required=True, type=Output(pull=True), help="Folder of the data set.")
@click.option("--to", "format_", default="coco", show_default=True, help="Format to write; see `data convert`.")
@click.option(
    "--detector",
    help="What looks at the pictures: the folder of an evaluator (judge), or a detector of transformers "
    "(folder or hub id). Without it nothing is filtered.",
)
@click.option("--pictures", type=_COUNT, help="How many to make, in place of the spec's.")
@model_options
@settings_options(alone=True)
@click.option("--batch-size", type=_COUNT, default=4, show_default=True, help="Pictures made together.")
@click.option("--overwrite", is_flag=True, help="Make pictures again that are there of another spec or model.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors and warnings.")
@engine_options
def make(
    spec: Path,
    output: Path,
    format_: str,
    detector: str | None,
    pictures: int | None,
    model: str,
    adapter: str | None,
    variant: str | None,
    dtype: str,
    device: str | None,
    batch_size: int,
    overwrite: bool,
    quiet: bool,
    engine: RayOptions | None,
    **options: Any,
) -> None:
    """Make the data set that SPEC (TOML or JSON, see docs/synthesis.md) describes.

    Scenes are drawn at random, the model makes their pictures, and what the detector does not confirm is left out.
    Beside OUTPUT, OUTPUT.making holds every picture and, in rejected/, what was left out with the reason. The same
    command again makes only what is missing.
    """
    say = Reporter(quiet)
    with uncollected():
        quieten_libraries(bars=say.watched)
        from instancediffusion.checkpoints import licence_of, local_adapter, model_defaults, weights_sha256
        from instancediffusion.pipeline.loading import local_model
        from instancediffusion.pipeline.opening import open_quietly
        from instancediffusion.projects import emoji_judge  # noqa: F401 - opens judges
        from instancediffusion.synthesis import (
            DatasetMaker,
            load_detector,
            pipeline_pictures,
            read_spec,
            spread_pictures,
        )
        from instancediffusion.synthesis.making import CHUNK, SPREAD_CHUNK

    read = read_spec(spec)
    read = read if pictures is None else dataclasses.replace(read, pictures=pictures)
    folder = local_model(model, variant=variant)
    adapter_folder = None if adapter is None else local_adapter(adapter, variant=variant)
    settings = settings_of(model_defaults(folder).replace(**read.settings), options)
    facts: dict[str, Any] = {"weights": weights_sha256(folder), "dtype": dtype, **precision_fact(device)}
    facts |= {"adapter": weights_sha256(adapter_folder)} if adapter_folder is not None else {}
    open_ = partial(open_quietly, folder, adapter_folder, dtype, device, variant)
    how: dict[str, Any] = {"batch_size": batch_size, "written": say.made, "record": {"asked_for": model}}
    make_pictures = (
        pipeline_pictures(open_, settings, **how) if engine is None else spread_pictures(open_, settings, engine, **how)
    )
    maker = DatasetMaker(
        read,
        output,
        make_pictures,
        model=facts,
        settings=settings,
        detector=None if detector is None else load_detector(detector, device or "cpu"),
        format=format_,
        licence=licence_of(model, folder),
        spec_folder=spec.parent,
        replace=overwrite,
        chunk=CHUNK if engine is None else SPREAD_CHUNK,
        say=say.line,
    )
    with say.warnings():
        made = maker.go()
    _tell(made, say)
    if made.failed:
        raise click.exceptions.Exit(1)


def _tell(made: MadeDataset, say: Reporter) -> None:
    """Print the results."""
    say.line(f"{made.folder}: {made.kept} of {made.pictures} pictures, {made.instances} instances")
    if made.rejected or made.dropped:
        why = ", ".join(f"{reason} ({count})" for reason, count in made.reasons.most_common(8))
        say.line(f"left out: {made.rejected} pictures, {made.dropped} instances of the others: {why}; see")
        say.line(str(made.work / "rejected" / "rejected.jsonl"))
    for reason in dict.fromkeys(made.failed.values()):
        numbers = [number for number, text in made.failed.items() if text == reason]
        more = f" (and {len(numbers) - 1} more)" if len(numbers) > 1 else ""
        echo(f"error: scene {numbers[0]}: {reason}{more}", err=True)
