"""`instancediffusion world`: build the synthetic world's sprites, and look at them."""

from pathlib import Path

import click

from .click_types import Group

_CACHE_HELP = "Folder of the sprites. Default: $INSTANCEDIFFUSION_CACHE, else the user's cache folder."


@click.group(cls=Group)
def world() -> None:
    """Build the synthetic world and look at it."""


@world.command()
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), help=_CACHE_HELP)
@click.option(
    "--art",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="An art set as an npm package that is already here (.tgz), may be repeated; `npm pack` fetches the others.",
)
@click.option("--force", is_flag=True, help="Draw the sprites again even if they are there.")
def build(cache: Path | None, art: tuple[Path, ...], force: bool) -> None:
    """Fetch the art (Noto and Fluent Emoji) and draw every sprite once. Needs npm and the extra `world`."""
    from instancediffusion.projects.emoji_world import KINDS, build_art
    from instancediffusion.projects.emoji_world.art import art_file

    path = art_file(KINDS, cache)
    if path.is_file() and not force:
        click.echo(f"{path}: already built ({len(KINDS)} kinds)")
        return
    build_art(KINDS, cache, art)
    click.echo(f"{path}: {len(KINDS)} kinds, {path.stat().st_size / 1e6:.1f} MB")


@world.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default="world",
    show_default=True,
    help="Folder to write the contact sheets to.",
)
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), help=_CACHE_HELP)
@click.option(
    "--size", type=click.IntRange(16, 1024), default=128, show_default=True, help="Canvas of the samples, in pixels."
)
@click.option("--count", type=click.IntRange(1, 1000), default=48, show_default=True, help="Number of samples.")
@click.option(
    "--max-objects", type=click.IntRange(1, 16), default=4, show_default=True, help="Most objects in a sample."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the first sample.")
@click.option("--all", "every", is_flag=True, help="All kinds of the catalogue, not only its core.")
@click.option("--overwrite", is_flag=True, help="Replace contact sheets that are there.")
def sheet(
    output: Path,
    cache: Path | None,
    size: int,
    count: int,
    max_objects: int,
    seed: int,
    every: bool,
    overwrite: bool,
) -> None:
    """Draw contact sheets: objects, colours, orientations, parts, backgrounds, samples, orders (scenes both ways)."""
    from instancediffusion.projects.emoji_world import KINDS, World, WorldSpec, contact_sheets

    there = next((output / name for name in contact_sheets.SHEETS if (output / name).exists()), None)
    if there is not None and not overwrite:
        raise click.BadParameter(
            f"{there} is there; add --overwrite to replace the contact sheets", param_hint="--output"
        )
    names = tuple(kind.name for kind in KINDS) if every else ()
    opened = World.load(cache, WorldSpec(size=size, max_objects=max_objects, objects=names))
    output.mkdir(parents=True, exist_ok=True)
    for name, picture in contact_sheets.all_sheets(opened, count, seed).items():
        picture.save(output / name)
        click.echo(str(output / name))


@world.command()
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write to."
)
@click.option("--count", type=click.IntRange(1), required=True, help="Number of pictures.")
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), help=_CACHE_HELP)
@click.option("--size", type=click.IntRange(16, 1024), default=256, show_default=True, help="Canvas, in pixels.")
@click.option(
    "--max-objects", type=click.IntRange(1, 16), default=4, show_default=True, help="Most objects in a picture."
)
@click.option(
    "--min-scale", type=float, default=0.22, show_default=True, help="Smallest object, fraction of the canvas."
)
@click.option(
    "--max-scale", type=float, default=0.75, show_default=True, help="Largest object, fraction of the canvas."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the first picture.")
@click.option("--all", "every", is_flag=True, help="All kinds of the catalogue, not only its core.")
def export(
    output: Path,
    count: int,
    cache: Path | None,
    size: int,
    max_objects: int,
    min_scale: float,
    max_scale: float,
    seed: int,
    every: bool,
) -> None:
    """Write pictures with their truth as a COCO data set: images/, instances.json, instances.captions.json."""
    from instancediffusion.projects.emoji_world import KINDS, World, WorldSpec, export_coco

    names = tuple(kind.name for kind in KINDS) if every else ()
    spec = WorldSpec(size=size, max_objects=max_objects, min_scale=min_scale, max_scale=max_scale, objects=names)
    for path in export_coco(World.load(cache, spec), output, count, first_seed=seed):
        click.echo(str(path))
