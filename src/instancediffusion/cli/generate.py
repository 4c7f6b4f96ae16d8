"""`instancediffusion generate`: scene files into pictures."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from instancediffusion.errors import Problem, SceneError, SceneWarning, SettingsError

from .collector import uncollected
from .progress import Reporter, quieten_libraries

if TYPE_CHECKING:
    from instancediffusion.scene import Scene

SCHEDULERS = ("pndm", "plms", "ddim", "dpm++", "unipc", "euler", "lcm")
INSTANCE_MASKS = ("none", "grounding", "full", "visibility", "published")
_SHARE = click.FloatRange(0, 1)
_COUNT = click.IntRange(min=1)


@click.command()
@click.argument("scenes", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to fill.")
@click.option("--seed", "seeds", type=click.IntRange(min=0), multiple=True, help="Seed; repeatable. Default: 0.")
@click.option("--num-images", type=_COUNT, help="Pictures of each scene, with seeds counting up from --seed.")
@click.option("--steps", "num_inference_steps", type=_COUNT, help="Steps of the sampler.")
@click.option("--scheduler", type=click.Choice(SCHEDULERS), help="Default: the model's own.")
@click.option("--guidance-scale", type=click.FloatRange(min=0), help="Weight of the prompt; 1 = guidance off.")
@click.option("--grounding-fraction", type=_SHARE, help="Share of the steps in which the instances steer.")
@click.option("--grounding-decay-fraction", type=_SHARE, help="Share of the steps after those in which they fade out.")
@click.option("--mis-fraction", type=click.FloatRange(min=0), help="Share of the steps with each instance by itself.")
@click.option(
    "--mis-merge", type=click.Choice(["mean", "crop", "layered"]), help="How instances join the whole picture."
)
@click.option("--mis-compat", type=click.Choice(["none", "published"]), help="Keep the published sampler's details.")
@click.option("--step-rounding", type=click.Choice(["nearest", "published"]), help="How shares become steps.")
@click.option("--instance-mask", type=click.Choice(INSTANCE_MASKS), help="Attention mask. Default: the adapter's own.")
@click.option("--order-guidance-scale", type=click.FloatRange(min=0), help="Push away from the reversed depth order.")
@click.option("--order-guidance-fraction", type=_SHARE, help="Share of the steps in which it does.")
@click.option("--complete-captions/--no-complete-captions", default=None, help="Choose what captions leave open.")
@click.option(
    "--place-objects/--no-place-objects",
    default=None,
    help="Without instances, give objects that the prompt names a place.",
)
@click.option("--negative-prompt", help="What not to show. Default: each scene's own.")
@click.option("--height", type=_COUNT, help="Height in pixels. Default: the model's, in the scene's shape.")
@click.option("--width", type=_COUNT, help="Width in pixels. Default: the model's, in the scene's shape.")
@click.option("--model", default="mini", show_default=True, help="mini, sd15, a folder or a hub id.")
@click.option("--adapter", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Adapter folder to use.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Type of the model's numbers.",
)
@click.option("--device", help="cpu, cuda, mps ... Default: the fastest there is.")
@click.option("--refiner", help="Folder or hub id of an image-to-image model that goes over each picture.")
@click.option("--refiner-strength", type=_SHARE, help="How much it may change; 0.35 if a refiner is given.")
@click.option("--refiner-steps", type=_COUNT, help="Steps of the refiner's whole schedule.")
@click.option("--refiner-guidance-scale", type=click.FloatRange(min=0), help="Default: the refiner's own.")
@click.option("--batch-size", type=_COUNT, default=4, show_default=True, help="Pictures made together.")
@click.option("--max-batch-rows", type=_COUNT, help="Bound on the rows of one network call, and so on memory.")
@click.option("--overwrite", is_flag=True, help="Replace pictures that are there with other settings.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors and warnings.")
def generate(
    scenes: tuple[Path, ...],
    output: Path,
    seeds: tuple[int, ...],
    num_images: int | None,
    model: str,
    adapter: Path | None,
    dtype: str,
    device: str | None,
    refiner: str | None,
    refiner_strength: float | None,
    batch_size: int,
    overwrite: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Turn SCENES into pictures.

    OUTPUT gets <scene>_<seed>.png for each picture, <scene>_overlay.png for each scene, and manifest.json. The same
    command again makes only what is missing. Scenes with the same seed start from the same noise, so a scene that
    grows from file to file keeps its composition.

    Settings left out are those the model is best run with.
    """
    named = _load(scenes)
    if len(seeds) > 1 and num_images is not None:
        raise SettingsError("seed: several seeds and --num-images are given; leave one of them out")
    if refiner is None and refiner_strength:
        raise SettingsError("refiner_strength: no refiner is given; add --refiner, or leave the strength out")
    options["refiner_strength"] = 0.35 if refiner is not None and refiner_strength is None else refiner_strength
    say = Reporter(quiet)

    with uncollected():
        quieten_libraries(bars=say.watched)
        from instancediffusion.checkpoints import weights_sha256
        from instancediffusion.pipeline.folder import Picture, PictureFolder, generate_pictures
        from instancediffusion.pipeline.loading import local_model, model_defaults
        from instancediffusion.pipeline.requests import resolve_seeds

    folder = local_model(model)
    settings = model_defaults(folder).replace(**{k: v for k, v in options.items() if v is not None})
    facts: dict[str, Any] = {"weights": weights_sha256(folder), "dtype": dtype}
    facts |= {"adapter": weights_sha256(adapter)} if adapter is not None else {}
    facts |= {"refiner": refiner} if settings.refiner_strength else {}
    run = PictureFolder(output, facts, settings, replace=overwrite)
    chosen = resolve_seeds(list(seeds) if len(seeds) > 1 else (seeds or (0,))[0], num_images)
    pictures = [Picture(name, scene, seed) for name, scene in named.items() for seed in chosen]
    pending = run.pending(pictures)
    for name, scene in named.items():
        say.wrote(run.put_overlay(name, scene))
    if len(pending) < len(pictures):
        say.line(f"{len(pictures) - len(pending)} of {len(pictures)} pictures are there already")
    if not pending:
        return
    start = time.perf_counter()
    pipeline = load_pipeline(folder, adapter, dtype, device)
    if settings.refiner_strength:
        pipeline.load_refiner(refiner, torch_dtype=pipeline.dtype)
    record = {
        "asked_for": model,
        "device": str(pipeline.device),
        "loading_seconds": round(time.perf_counter() - start, 3),
    }
    with say.progress(pipeline, len(pending)):
        generate_pictures(pipeline, run, pending, settings, batch_size=batch_size, record=record, written=say.made)


def names_of(paths: Sequence[Path]) -> list[str]:
    """A name for each scene file, its stem where that is unique.

    Files of the same stem are told apart by the folder they are in, and where that is not enough by a number.
    """
    stems = [path.stem for path in paths]
    names: list[str] = []
    for path, stem in zip(paths, stems, strict=True):
        name = stem if stems.count(stem) == 1 else f"{path.resolve().parent.name}_{stem}"
        taken, count = name, 2
        while taken in names:
            taken, count = f"{name}-{count}", count + 1
        names.append(taken)
    return names


def _load(paths: Sequence[Path]) -> dict[str, Scene]:
    """Read every scene by a name of its own; raise all problems of all of them together."""
    from instancediffusion.scene import load_scene

    files = list({path.resolve(): path for path in paths}.values())
    found: dict[str, Scene] = {}
    problems: list[Problem] = []
    for name, path in zip(names_of(files), files, strict=True):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", SceneWarning)
            try:
                found[name] = load_scene(path)
            except SceneError as error:
                problems += [Problem(f"{path}: {p.path}", p.message, p.fix, p.severity) for p in error.problems]
        for warning in caught:
            click.echo(f"warning: {warning.message}", err=True)
    if problems:
        raise SceneError(problems)
    return found


def load_pipeline(folder: Path, adapter: Path | None, dtype: str, device: str | None) -> Any:
    """Load the model onto a device."""
    place = device or _fastest_device()
    given = {} if adapter is None else {"adapter": adapter}
    with uncollected():
        import torch

        from instancediffusion.pipeline import InstanceDiffusionPipeline

    pipeline = InstanceDiffusionPipeline.from_pretrained(folder, torch_dtype=getattr(torch, dtype), **given)
    try:
        return pipeline.to(place)
    except (RuntimeError, AssertionError) as error:  # what torch raises for a device that is not there
        raise SettingsError(f"device: {place!r} cannot be used here ({str(error).splitlines()[0]})") from error


def _fastest_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
