"""`instancediffusion scene`: check, draw and convert scene files."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from instancediffusion.errors import Problem, SceneError, SceneWarning

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUT = click.Path(path_type=Path)
_PICTURES = (".png", ".svg")


@click.group()
def scene() -> None:
    """Check, draw and convert scene files."""


@scene.command()
@click.argument("files", nargs=-1, required=True, type=_FILE, metavar="FILE...")
@click.option("--format", "format_", type=click.Choice(["native", "official"]), help="Read as this format.")
@click.option("--strict", is_flag=True, help="Count warnings as errors.")
def validate(files: tuple[Path, ...], format_: Any, strict: bool) -> None:
    """Print every problem of scene files; exit with 2 if any file cannot be used."""
    from instancediffusion.scene import check_scene

    bad = 0
    for path in files:
        check = check_scene(path, format=format_)
        _print_problems(path, check.problems)
        failed = check.scene is None or (strict and bool(check.problems))
        bad += failed
        if not failed and check.scene is not None:
            count = len(check.scene.instances)
            click.echo(f"{path}: ok ({check.format}, {count} instance{'s' if count != 1 else ''})")
    if bad:
        raise click.exceptions.Exit(2)


@scene.command()
@click.argument("file", type=_FILE)
@click.argument("out", type=_OUT)
@click.option("--background", type=_FILE, help="Draw on this picture.")
@click.option("--size", type=click.IntRange(16, 8192), help="Longer side of the canvas on the picture, in pixels.")
@click.option("--legend/--no-legend", default=True, help="Add the panel with prompt, captions and depth order.")
def render(file: Path, out: Path, background: Path | None, size: int | None, legend: bool) -> None:
    """Draw where a scene's objects are to be, as OUT.png or OUT.svg."""
    from PIL import Image

    from instancediffusion.rendering import render_overlay, render_overlay_svg
    from instancediffusion.runs import atomic_path, write_atomic
    from instancediffusion.scene import load_scene

    if out.suffix.lower() not in _PICTURES:
        raise click.BadParameter(f"{out} ends neither in .png nor in .svg", param_hint="OUT")
    with _told_warnings():
        loaded = load_scene(file)
    scale = (size or 768) / max(loaded.width, loaded.height)
    shape = (max(1, round(loaded.height * scale)), max(1, round(loaded.width * scale)))
    below = None
    if background is not None:
        with Image.open(background) as picture:
            below = picture.convert("RGB")
    if out.suffix.lower() == ".svg":
        write_atomic(out, render_overlay_svg(loaded, shape, background=below, legend=legend))
    else:
        overlay = render_overlay(loaded, shape, background=below, legend=legend)
        with atomic_path(out) as temporary:
            overlay.save(temporary, "PNG")
    click.echo(out)


@scene.command()
@click.argument("source", type=_FILE, metavar="IN")
@click.argument("out", type=_OUT)
@click.option(
    "--to",
    "target",
    type=click.Choice(["native", "official", "coco"]),
    default="native",
    show_default=True,
    help="Write OUT in this format.",
)
@click.option("--from", "origin", type=click.Choice(["native", "official", "coco"]), help="Read IN as this format.")
@click.option("--captions", type=_FILE, help="Captions file that goes with a COCO instances file.")
@click.option("--image-id", "image_ids", type=int, multiple=True, help="Only this picture of a COCO file; repeatable.")
@click.option(
    "--picture", help="Picture made from the scene, for COCO; if it can be read, its size is the annotations'."
)
def convert(
    source: Path,
    out: Path,
    target: Any,
    origin: str | None,
    captions: Path | None,
    image_ids: tuple[int, ...],
    picture: str | None,
) -> None:
    """Convert a scene file.

    A COCO file with several pictures becomes a folder OUT with one scene for each. A scene becomes the COCO file
    OUT.json with its prompt in OUT.captions.json.
    """
    from instancediffusion.scene import CocoScene, load_scene, read_coco, save_scene

    with _told_warnings():
        if origin == "coco" or (origin is None and (captions is not None or _is_coco(source))):
            found = read_coco(source, captions, image_ids=set(image_ids) or None)
        else:
            loaded = load_scene(source, format=origin)  # type: ignore[arg-type]
            if picture is not None and Path(picture).is_file():
                loaded = _at_size_of(Path(picture), loaded)
            found = [CocoScene(1, picture or f"{source.stem}.png", loaded)]
    if not found:
        raise SceneError([Problem("$", "has no picture that can be used", "look at the warnings")], str(source))
    if target == "coco":
        _save_coco(found, out)
    elif len(found) == 1 and out.suffix.lower() == ".json":
        save_scene(found[0].scene, out, format=target)
        click.echo(out)
    else:
        names = {item.image_id: f"{Path(item.file_name).stem or item.image_id}.json" for item in found}
        if len(set(names.values())) < len(names):
            names = {number: f"{number}.json" for number in names}
        for item in found:
            save_scene(item.scene, out / names[item.image_id], format=target)
        click.echo(f"{out}: {len(found)} scene{'s' if len(found) != 1 else ''}")


@scene.command()
@click.argument("prompt")
@click.argument("out", type=_OUT)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Another seed, another layout.")
@click.option(
    "--width", type=click.IntRange(16, 8192), default=512, show_default=True, help="Of the canvas, in pixels."
)
@click.option("--height", type=click.IntRange(16, 8192), default=512, show_default=True, help="Of the canvas.")
@click.option("--model", default="mini", show_default=True, help="Whose objects are known: mini, a folder or a hub id.")
def arrange(prompt: str, out: Path, seed: int, width: int, height: int, model: str) -> None:
    """Write a scene file with a place for each object that PROMPT names, to be edited or drawn.

    `generate` does the same by itself for scenes without instances.
    """
    from instancediffusion.pipeline.loading import known_objects, local_model
    from instancediffusion.scene import Arrangement, Scene, save_scene

    nouns, grounds = known_objects(local_model(model))
    if not nouns:
        raise click.BadParameter(f"{model} does not say which objects it knows", param_hint="--model")
    arranged = Arrangement(nouns, grounds).arrange(Scene(prompt, (), width, height), seed)
    if not arranged.instances:
        raise SceneError(
            [Problem("$.prompt", "names no object that is known", "`instancediffusion doctor --vocabulary` lists them")]
        )
    if out.exists():
        raise click.BadParameter(f"{out} is there; choose another name", param_hint="OUT")
    save_scene(arranged, out)
    for instance in arranged.instances:
        click.echo(f"{instance.caption}{'' if instance.z_order is None else f' (layer {instance.z_order})'}")
    click.echo(out)


@scene.command()
def schema() -> None:
    """Print the JSON Schema of the native format."""
    from json import dumps

    from instancediffusion.scene import json_schema

    click.echo(dumps(json_schema(), indent=2))


def _save_coco(scenes: list[Any], out: Path) -> None:
    from instancediffusion.runs import write_json
    from instancediffusion.scene import coco_paths, write_coco

    for path, data in zip(coco_paths(out), write_coco(scenes), strict=True):
        write_json(path, data)
        click.echo(path)


def _at_size_of(picture: Path, scene: Any) -> Any:
    """The scene in pixels of the picture: its canvas is only a frame, and pictures are often of another size."""
    from PIL import Image, UnidentifiedImageError

    from instancediffusion.scene import resize_scene

    try:
        with Image.open(picture) as opened:
            width, height = opened.size
    except UnidentifiedImageError:
        raise SceneError([Problem("$", "is no picture", "give a PNG or JPEG")], str(picture)) from None
    return resize_scene(scene, width=width, height=height)


def _is_coco(path: Path) -> bool:
    """Whether a file is COCO by its keys. Only a file that could be one is read for that."""
    from json import loads

    try:
        data = loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(data, dict) and {"images", "annotations"} <= data.keys()


def _print_problems(path: Path, problems: tuple[Problem, ...]) -> None:
    for problem in problems:
        click.echo(f"{problem.severity}: {path}: {problem}", err=True)


@contextmanager
def _told_warnings() -> Iterator[None]:
    """Print what was mended on reading, one line each, instead of as Python warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SceneWarning)
        yield
    for warning in caught:
        if issubclass(warning.category, SceneWarning):
            click.echo(f"warning: {warning.message}", err=True)
