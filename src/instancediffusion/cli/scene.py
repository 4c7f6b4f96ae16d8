"""`instancediffusion scene`: check, draw and convert scene files."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from instancediffusion.choices import STANDARD
from instancediffusion.errors import Problem, SceneError, SettingsError

from .click_types import Group, Names
from .reading_options import FILE, OUT, reading_options

if TYPE_CHECKING:
    from instancediffusion.scene import NamedScene, Scene
    from instancediffusion.scene.inputs import Reading

_PICTURES = (".png", ".svg")
_OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace files that are there.")


def _targets() -> Collection[str]:
    from instancediffusion.scene import written

    return (*written(), "coco")


@click.group(cls=Group)
def scene() -> None:
    """Check, draw and convert scene files."""


@scene.command()
@click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE...")
@click.option("--format", "old_format", type=click.Choice(["native", "official"]), hidden=True, help="Now --from.")
@reading_options
@click.option("--strict", is_flag=True, help="Count warnings as errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def validate(files: tuple[Path, ...], old_format: str | None, reading: Reading, strict: bool, as_json: bool) -> None:
    """Print every problem of FILEs; exit with 2 if any cannot be used. - is standard input."""
    reading = replace(reading, format=old_format) if old_format is not None else reading
    bad, listed = 0, []
    for path in files:
        check = reading.check(path)
        failed = not check.scenes or (strict and bool(check.problems))
        bad += failed
        counts = [len(item.scene.instances) for item in check.scenes]
        if as_json:
            problems = [vars(problem) for problem in check.problems]
            found = [{"name": item.name, "instances": len(item.scene.instances)} for item in check.scenes]
            listed.append({"file": str(path), "ok": not failed, "format": check.format, "scenes": found,
                           "problems": problems})  # fmt: skip
            continue
        for problem in check.problems:
            click.echo(f"{problem.severity}: {path}: {problem}", err=True)
        if not failed:
            scenes = f"{len(counts)} scenes, " if len(counts) != 1 else ""
            click.echo(f"{path}: ok ({check.format}, {scenes}{_counted(sum(counts), 'instance')})")
    if as_json:
        click.echo(json.dumps(listed, indent=2))
    if bad:
        raise click.exceptions.Exit(2)


@scene.command()
@click.argument("file", type=FILE)
@click.argument("out", type=OUT)
@click.option("--background", type=FILE, help="Draw on this picture.")
@click.option("--size", type=click.IntRange(16, 8192), help="Longer side of the canvas on the picture, in pixels.")
@click.option("--legend/--no-legend", default=True, help="Add the panel with prompt, captions and depth order.")
@click.option("--font", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Typeface (.ttf, .otf).")
@reading_options
@_OVERWRITE
def render(
    file: Path,
    out: Path,
    background: Path | None,
    size: int | None,
    legend: bool,
    font: Path | None,
    reading: Reading,
    overwrite: bool,
) -> None:
    """Draw where a scene's objects are to be, as OUT.png or OUT.svg.

    FILE may be - for standard input, and OUT - for a PNG on standard output.
    """
    import io

    from instancediffusion.rendering import render_overlay, render_overlay_svg

    if str(out) != STANDARD and out.suffix.lower() not in _PICTURES:
        raise click.BadParameter(f"{out} ends neither in .png nor in .svg", param_hint="OUT")
    _check_free([out], overwrite)
    loaded = _one_scene(file, reading)
    scale = (size or 768) / max(loaded.width, loaded.height)
    shape = (max(1, round(loaded.height * scale)), max(1, round(loaded.width * scale)))
    below = None
    if background is not None:
        below = _open_picture(background)
        _warn_of_shape(background, below.size, loaded)
    given: dict[str, Any] = {"background": below, "legend": legend, "font": font}
    if out.suffix.lower() == ".svg":
        content = render_overlay_svg(loaded, shape, **given).encode()
    else:
        buffer = io.BytesIO()
        render_overlay(loaded, shape, **given).save(buffer, "PNG")
        content = buffer.getvalue()
    _write(out, content)


@scene.command()
@click.argument("source", type=FILE, metavar="IN")
@click.argument("out", type=OUT)
@click.option(
    "--to",
    "target",
    type=Names(_targets),
    metavar="FORMAT",
    default="native",
    show_default=True,
    help="Write OUT in this format: native, official, coco.",
)
@reading_options
@click.option(
    "--picture", help="Picture made from the scene, for COCO; if it can be read, its size is the annotations'."
)
@_OVERWRITE
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def convert(
    source: Path,
    out: Path,
    target: Any,
    reading: Reading,
    picture: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Convert a scene file.

    IN may be a scene (native, or as the published demo writes it), COCO, LabelMe, Label Studio, YOLO, Pascal VOC,
    CVAT, a list of boxes from a language model, an answer of LLM-grounded diffusion, a PNG made here, or - for
    standard input. Its format is recognised by its content.

    A file of several pictures becomes a folder OUT with one scene for each. A scene becomes the COCO file OUT.json
    with its prompt in OUT.captions.json. - as OUT is standard output.
    """
    from instancediffusion.scene import coco_paths, scene_text

    found = _scenes(source, reading)
    if picture is not None:
        if len(found) != 1:
            raise click.BadParameter(f"{source} holds {len(found)} pictures", param_hint="--picture")
        item = replace(found[0], file_name=picture)
        found = [replace(item, scene=_at_size_of(Path(picture), item.scene)) if Path(picture).is_file() else item]
    folder: Path | None = None
    paths: tuple[Path, ...]
    if target == "coco":
        paths = coco_paths(out) if str(out) != STANDARD else (out,)
        texts = [json.dumps(data, indent=2, ensure_ascii=False) + "\n" for data in _coco_data(found)]
    elif len(found) == 1 and (out.suffix.lower() == ".json" or str(out) == STANDARD):
        paths, texts = (out,), [scene_text(found[0].scene, format=target)]
    elif str(out) == STANDARD:
        # One scene a line: what several programs read, this one among them.
        lines = [json.dumps(item.scene.to_dict()) + "\n" for item in found]
        paths, texts = (out,), ["".join(lines)]
    elif out.suffix.lower() == ".json" and not out.is_dir():
        raise click.BadParameter(f"{source} holds {len(found)} scenes: name a folder for them", param_hint="OUT")
    else:
        folder = out
        paths = tuple(out / f"{item.name}.json" for item in found)
        texts = [scene_text(item.scene, format=target) for item in found]
    _check_free(paths, overwrite)
    for path, text in zip(paths, texts, strict=False):  # standard output takes the instances, without their captions
        _write(path, text.encode(), quiet=as_json or folder is not None)
    if as_json and str(out) != STANDARD:
        written = [{"path": str(path), "bytes": path.stat().st_size} for path in paths]
        click.echo(json.dumps(written, indent=2))
    elif folder is not None:
        there = len({path.resolve() for path in paths if path.is_file()})
        click.echo(f"{folder}: {_counted(there, 'scene')}")


@scene.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path), metavar="SCENES")
@click.option("-o", "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to fill.")
@_OVERWRITE
def flip(source: Path, out: Path, overwrite: bool) -> None:
    """Write both depth orders of every overlapping pair in SCENES, a scene file each, for any model to draw.

    NAME_0-over-2.json is the scene NAME with instance 0 (the first) in front of instance 2. `evaluate --suite flip`
    scores the pictures, which have the same names. SCENES is a data set of any format, or a file of scenes.
    """
    from instancediffusion.evaluation.suites import suite_of
    from instancediffusion.evaluation.suites.suite_run import read_cases
    from instancediffusion.scene import scene_text

    suite = suite_of("flip")
    requests = read_cases(suite, source)
    names = [one.name.rpartition("/")[2] for one in requests]
    if twice := next((name for name, count in Counter(map(str.casefold, names)).items() if count > 1), None):
        raise SettingsError(f"{source}: two scenes have the request {twice!r}; give their files different names")
    paths = [out / f"{name}.json" for name in names]
    _check_free(paths, overwrite)
    for path, one in zip(paths, requests, strict=True):
        _write(path, scene_text(one.example.scene).encode(), quiet=True)
    click.echo(f"{out}: {_counted(len(paths), 'request')}; {', '.join(f'{k}: {v}' for k, v in suite.notes().items())}")


@scene.command()
def schema() -> None:
    """Print the JSON Schema of the native format."""
    from instancediffusion.scene import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


@scene.command()
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def formats(as_json: bool) -> None:
    """List the formats that are read."""
    from instancediffusion.scene import READ

    click.echo(
        json.dumps(dict(READ), indent=2) if as_json else "\n".join(f"{name:<14}{text}" for name, text in READ.items())
    )


def _scenes(source: Path, reading: Reading) -> list[NamedScene]:
    """The scenes of a file; what was mended or left out is reported.

    Raises:
        SceneError: there is none that can be used.
    """
    check = reading.check(source)
    if not check.scenes:
        raise SceneError(check.problems, str(source))
    for problem in check.problems:
        click.echo(f"warning: {source}: {problem}", err=True)
    return list(check.scenes)


def _one_scene(source: Path, reading: Reading) -> Scene:
    found = _scenes(source, reading)
    if len(found) > 1:
        fix = "choose one with --image-id" if reading.image_ids or found[0].file_name else "give one of them"
        raise SceneError([Problem("$", f"holds {len(found)} scenes, and one is drawn", fix)], str(source))
    return found[0].scene


def _coco_data(found: Sequence[NamedScene]) -> tuple[dict[str, Any], dict[str, Any]]:
    from instancediffusion.scene import CocoScene, write_coco

    ids = [item.image_id for item in found]
    numbers = ids if len(set(ids)) == len(ids) else list(range(1, len(ids) + 1))
    return write_coco(
        CocoScene(number, item.file_name or f"{item.name}.png", item.scene)
        for number, item in zip(numbers, found, strict=True)
    )


def _check_free(paths: Sequence[Path], overwrite: bool) -> None:
    """Raise unless every file may be written; nothing of the user's is written over unasked."""
    there = [path for path in paths if str(path) != STANDARD and path.exists()]
    if there and not overwrite:
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise click.BadParameter(f"{there[0]}{more} is there; add --overwrite to replace it", param_hint="OUT")
    if len({str(path).casefold() for path in paths}) < len(paths):
        raise ValueError("two results have one name")


def _write(path: Path, content: bytes, *, quiet: bool = False) -> None:
    from instancediffusion.runs import write_atomic

    if str(path) == STANDARD:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    write_atomic(path, content)
    if not quiet:
        click.echo(path)


def _open_picture(path: Path) -> Any:
    """A picture as it is meant to be seen: cameras store it lying, and note how to turn it.

    Raises:
        SceneError: it is none, or damaged.
    """
    import io

    from PIL import Image, ImageOps, UnidentifiedImageError

    source: Any = io.BytesIO(sys.stdin.buffer.read()) if str(path) == STANDARD else path
    try:
        with Image.open(source) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        message = "is no picture" if isinstance(error, UnidentifiedImageError) else f"cannot be read ({error})"
        raise SceneError([Problem("$", message, "give a PNG or JPEG")], str(path)) from None


def _warn_of_shape(path: Path, size: tuple[int, int], scene: Scene) -> None:
    """Report that a picture has another shape than the scene, so that it is stretched."""
    ratio = size[0] * scene.height / (size[1] * scene.width)
    if not 0.96 < ratio < 1.04:
        click.echo(
            f"warning: {path}: is {size[0]} x {size[1]} pixels, of another shape than the scene's "
            f"{scene.width} x {scene.height}: it is stretched; is it the picture of this scene?",
            err=True,
        )


def _at_size_of(picture: Path, scene: Scene) -> Scene:
    """The scene in pixels of the picture: its canvas only sets the units, and pictures are often of another size."""
    from instancediffusion.scene import resize_scene

    width, height = _open_picture(picture).size
    _warn_of_shape(picture, (width, height), scene)
    return resize_scene(scene, width=width, height=height)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count != 1 else ''}"
