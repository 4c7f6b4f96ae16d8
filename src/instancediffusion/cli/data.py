"""`instancediffusion data`: labelled pictures of any format, looked at, checked, converted, split, annotated."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from instancediffusion.errors import SettingsError

from .annotate import annotate
from .click_types import Group, Output, Source
from .progress import echo, echoed_warnings

if TYPE_CHECKING:
    from instancediffusion.datasets import SceneDataset

_PATH = Source()
_FORMAT = click.option("--from", "format_", help="Read as this format; else it is found out.")
_SPLIT = click.option("--split", help="The part to read (train, val, ...), where there are parts.")
_IMAGES = click.option("--images", type=Source(file_okay=False), help="The pictures.")


@click.group(cls=Group)
def data() -> None:
    """Look at, check, convert, split and annotate labelled pictures."""


data.add_command(annotate)


def _open(path: Path, format_: str | None, split: str | None, images: Path | None) -> SceneDataset:
    from instancediffusion.datasets import ReadingOptions, open_dataset

    return open_dataset(path, format_, ReadingOptions(images=images, split=split))


@data.command()
@click.argument("path", type=_PATH)
@_FORMAT
@_SPLIT
@_IMAGES
def info(path: Path, format_: str | None, split: str | None, images: Path | None) -> None:
    """Say what PATH holds: pictures, instances, kinds of location, order, categories."""
    from instancediffusion.datasets import format_of, usable

    with echoed_warnings():
        dataset = _open(path, format_, split, images)
        counts, categories, pictures = Counter[str](), Counter[str](), 0
        for _, example in usable(dataset):
            pictures += 1
            for index, instance in enumerate(example.scene.instances):
                categories[example.category(index)] += 1
                counts.update([*instance.kinds, *(["z_order"] if instance.z_order is not None else [])])
            counts["visible"] += sum(mask is not None for mask in example.visible)
            counts["without a picture"] += example.image is None
    echo(f"{path}: {format_of(path, format_).name}, {pictures} of {len(dataset)} entries can be used")
    echo(f"instances: {sum(categories.values())} ({', '.join(f'{k} {n}' for k, n in counts.items() if n)})")
    echo(f"categories: {len(categories)} ({', '.join(f'{k} {n}' for k, n in categories.most_common(20))})")


@data.command()
@click.argument("path", type=_PATH)
@_FORMAT
@_SPLIT
@_IMAGES
def check(path: Path, format_: str | None, split: str | None, images: Path | None) -> None:
    """Read every entry of PATH and its picture; exit with 2 if any cannot be used or was mended."""
    from instancediffusion.datasets import usable
    from instancediffusion.errors import SceneError

    with echoed_warnings() as found:
        dataset = _open(path, format_, split, images)
        good = 0
        for index, example in usable(dataset):
            try:
                example.pixels()
                good += 1
            except SceneError as error:
                warnings.warn(f"{path}: entry {index}: {error}", stacklevel=1)
    echo(f"{path}: {good} of {len(dataset)} entries and their pictures can be used")
    if found:
        raise click.exceptions.Exit(2)


@data.command()
@click.argument("source", type=_PATH)
@click.argument("out", type=Output(file_okay=False, pull=True))
@click.option("--to", "target", required=True, help="The format to write.")
@_FORMAT
@_SPLIT
@_IMAGES
def convert(source: Path, out: Path, target: str, format_: str | None, split: str | None, images: Path | None) -> None:
    """Write SOURCE in another format into the new folder OUT, pictures too; what is lost is reported."""
    from instancediffusion.datasets import write_dataset

    with echoed_warnings():
        written = write_dataset(_open(source, format_, split, images), out, target)
    left = f", {written.skipped} left out" if written.skipped else ""
    echo(f"{out}: {written.pictures} pictures, {written.instances} instances ({target}){left}")


@data.command("split")
@click.argument("source", type=_PATH)
@click.argument("out", type=Output(file_okay=False, pull=True))
@click.option("--part", "parts", multiple=True, help="NAME=SHARE, such as train=0.9; repeatable.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another seed, other parts.")
@click.option("--to", "target", help="The format to write; that of SOURCE if not given.")
@_FORMAT
@_IMAGES
def split_(
    source: Path, out: Path, parts: tuple[str, ...], seed: int, target: str | None, format_: str | None,
    images: Path | None,
) -> None:  # fmt: skip
    """Share the entries of SOURCE among new folders OUT/NAME at random; each goes to one of them."""
    import numpy as np

    from instancediffusion.datasets import Subset, format_of, write_dataset

    shares = [_share(part) for part in parts or ("train=0.9", "val=0.1")]
    total = sum(share for _, share in shares)
    if total > 1 + 1e-9 or len({name for name, _ in shares}) < len(shares):
        raise SettingsError(f"--part: the shares sum to {total:g}; give each part once, and at most 1 in all")
    with echoed_warnings():
        dataset = _open(source, format_, None, images)
        order = np.random.default_rng(seed).permutation(len(dataset))
        ends = np.rint(np.cumsum([0.0, *(share for _, share in shares)]) * len(dataset)).astype(int)
        for (name, _), first, last in zip(shares, ends[:-1], ends[1:], strict=True):
            if first == last:
                raise SettingsError(f"--part {name}: no picture falls to it; give it a larger share")
            subset = Subset(dataset, sorted(order[first:last].tolist()))
            written = write_dataset(subset, out / name, target or format_of(source, format_).name)
            echo(f"{out / name}: {written.pictures} pictures, {written.instances} instances")


def _share(part: str) -> tuple[str, float]:
    name, _, text = part.partition("=")
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not name.isidentifier() or not 0 < share <= 1:
        raise SettingsError(f"--part {part!r}: write NAME=SHARE, a share in 0..1, such as train=0.9")
    return name, share
