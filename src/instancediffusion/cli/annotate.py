"""`instancediffusion data annotate`: pictures in, labelled pictures out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from instancediffusion.errors import SettingsError

from .click_types import Output, Source
from .model_options import engine_options
from .progress import echo, echoed_warnings

if TYPE_CHECKING:
    from instancediffusion.ray_pool import RayOptions

STAGES = ("tagger", "detector", "segmenter", "captioner", "depth")


@click.command()
@click.argument("source", metavar="IMAGES", type=Source())
@click.option("-o", "--out", required=True, type=Output(file_okay=False, pull=True), help="The data set.")
@click.option("--to", "target", default="coco", show_default=True, help="The format to write.")
@click.option("--recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A TOML file of settings.")
@click.option("--tags", help="What to look for, with commas; else the tagger names it for each picture.")
@click.option("--tagger", help="Hub id, ID@REVISION or folder; 'none' leaves it out.")
@click.option("--detector", help="The same, of the model that finds boxes.")
@click.option("--segmenter", help="The same, of the model that cuts out masks.")
@click.option("--captioner", help="The same, of the model that describes.")
@click.option("--depth", help="The same, of the depth model.")
@click.option("--score", type=float, help="The lowest score of a detection.")
@click.option("--order", help="auto, annotations, depth or none.")
@click.option("--depth-margin", type=float, help="Overlaps that differ by less of the range have no order.")
@click.option("--batch-size", type=int, help="Pictures that go through a model at a time.")
@click.option("--device", help="Where models run; a GPU if there is one.")
@click.option("--from", "format_", help="Read IMAGES as this format; 'pictures' ignores labels. Else it is found out.")
@click.option("--split", help="The part to read, where there are parts.")
@click.option("--images", type=click.Path(exists=True, file_okay=False, path_type=Path), help="The pictures of labels.")
@click.option("--retry", is_flag=True, help="Try pictures again that failed before.")
@click.option("--overwrite", is_flag=True, help="Replace what was made with other settings, or changed since.")
@engine_options
def annotate(
    source: Path, out: Path, target: str, recipe: Path | None, tags: str | None, device: str | None,
    format_: str | None, split: str | None, images: Path | None, retry: bool, overwrite: bool,
    engine: RayOptions | None, **given: Any,
) -> None:  # fmt: skip
    """Give the pictures in IMAGES boxes, masks, captions and a depth order by models of transformers.

    With --engine ray pictures are sent to a cluster; name a --device that its machines have.

    IMAGES is a folder of pictures, or a data set whose missing labels are filled in. Started again it goes on where it
    stopped; OUT.records beside OUT holds what is done, and failed.jsonl there why pictures failed.
    """
    from instancediffusion.annotation import Target, annotate_dataset, open_pictures
    from instancediffusion.annotation.models import find_models
    from instancediffusion.datasets import ReadingOptions

    if out.resolve().is_relative_to(source.resolve()):
        raise SettingsError(f"--out {out}: lies in {source}, whose pictures are annotated; choose another folder")
    settings = _settings(recipe, tags, given)
    with echoed_warnings():
        dataset = open_pictures(source, format_, ReadingOptions(images=images, split=split))
        models = find_models(settings, device or _device())
        where = Target(out, target, overwrite, retry)
        outcome = annotate_dataset(dataset, where, settings, models.pins, models.build, _progress, engine)
    for key, reason in outcome.failed.items():
        echo(f"warning: {key}: {reason}", err=True)
    count = f"{outcome.annotated} new, {outcome.skipped} done before, {len(outcome.failed)} failed"
    wrote = "is up to date"
    if outcome.written is not None:
        wrote = f"{outcome.written.pictures} pictures, {outcome.written.instances} instances ({target})"
    echo(f"{out}: {wrote}; {count}")
    if outcome.failed:
        raise click.exceptions.Exit(1)


def _settings(recipe: Path | None, tags: str | None, given: dict[str, Any]) -> Any:
    """The settings of a recipe, with what the command line says instead."""
    from instancediffusion.annotation import AnnotationSettings
    from instancediffusion.training.config import read_as

    settings = read_as(AnnotationSettings, recipe) if recipe is not None else AnnotationSettings()
    named = {stage: given.pop(stage) for stage in STAGES}
    names = {stage: "" if name == "none" else name for stage, name in named.items() if name is not None}
    changes = {name: value for name, value in given.items() if value is not None}
    if tags is not None:
        changes["tags"] = tuple(tag.strip() for tag in tags.split(",") if tag.strip())
        if not changes["tags"]:
            raise SettingsError(f"--tags {tags!r}: names nothing; write what to look for, with commas")
    return replace(settings, models=replace(settings.models, **names), **changes)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _progress(done: int, total: int) -> None:
    echo(f"{done} of {total}", err=True)
