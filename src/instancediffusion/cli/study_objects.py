"""`instancediffusion study captions` and `study seeds`: one object in a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from .progress import Countdown, quieten_libraries

_COUNT = click.IntRange(min=1)
_MODEL = click.option("--model", default="mini", show_default=True, help="mini, a folder or a hub id.")
_OUTPUT = click.option(
    "-o", "--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to fill."
)
_DEVICE = click.option("--device", default="cpu", show_default=True, help="Where the model runs.")
_BATCH = click.option("--batch-size", type=_COUNT, default=4, show_default=True, help="Pictures made together.")
_OVERWRITE = click.option("--overwrite", is_flag=True, help="Make pictures again that are there with other settings.")
_QUIET = click.option("--quiet", is_flag=True, help="Print nothing but errors.")
WORLD_PX = 256


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_MODEL
@click.option(
    "--judge",
    "judge_folder",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the network that `instancediffusion judge train` wrote.",
)
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
    """Draw captions in people's own words: is what they name there?

    FILE is a JSON list of {"caption": "a sleepy kitten", "class": "cat"}, such as benchmarks/everyday_captions.json;
    the class is a kind of the synthetic world. Each is drawn alone in a box. OUTPUT gets the pictures, report.json,
    report.md and captions.jsonl, a line for each caption with what is seen in its place.
    """
    quieten_libraries(bars=False)
    from instancediffusion.evaluation import EvaluationReport, Evaluator, Judged, to_markdown
    from instancediffusion.projects.emoji_judge import Judge
    from instancediffusion.projects.overlap_study.single_objects import caption_requests, read_captions
    from instancediffusion.runs import write_atomic

    world = _world()
    requests = list(caption_requests(world, read_captions(file)))
    judge = Judge.load(judge_folder)
    gallery, facts = _drawn(model, output, {"captions": requests}, batch_size, device, overwrite, quiet)
    lines: list[str] = []

    def judged(one: Judged) -> None:
        score = one.scores[0]
        right = bool(score.kind_right)
        lines.append(
            json.dumps({"caption": one.truth.name, "class": score.name, "seen": score.seen_as, "right": right})
        )

    pairs = ((gallery.picture("captions", k), request.truth) for k, request in enumerate(requests))
    group = Evaluator(judge).group("captions", pairs, judged)
    right = sum(json.loads(line)["right"] for line in lines) / len(lines)
    report = EvaluationReport((group,), {**facts, "right_class_of_all": round(right, 4)}, judge.describe())
    report.save(output / "report.json")
    write_atomic(output / "report.md", to_markdown(report))
    write_atomic(output / "captions.jsonl", "\n".join(lines) + "\n")
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
    from instancediffusion.projects.overlap_study.single_objects import mean_distance, seed_requests
    from instancediffusion.runs import write_json

    world = _world()
    groups = {f"object{number}": some for number, some in enumerate(seed_requests(world, objects, seeds))}
    gallery, facts = _drawn(model, output, groups, batch_size, device, overwrite, quiet)
    rows: list[dict[str, Any]] = []
    for name, requests in groups.items():
        own = mean_distance([gallery.picture(name, number) for number in range(len(requests))], requests[0].box)
        best = mean_distance([request.composite for request in requests], requests[0].box)
        rows.append({"caption": requests[0].truth.name, "model": own, "world": best, "ratio": own / best})
    mean = sum(row["ratio"] for row in rows) / len(rows)
    write_json(output / "seeds.json", {"facts": facts, "ratio": mean, "captions": rows})
    if not quiet:
        for row in rows:
            click.echo("{caption}: model {model:.3f}, world {world:.3f}, ratio {ratio:.2f}".format(**row))
        click.echo(f"mean ratio {mean:.2f}")


def _world() -> Any:
    from instancediffusion.projects.emoji_world import World, WorldSpec
    from instancediffusion.projects.emoji_world.catalogue import FIRST_CORE

    return World.load(spec=WorldSpec(size=WORLD_PX, objects=FIRST_CORE, part_share=0.0))


def _drawn(
    model: str,
    output: Path,
    groups: Mapping[str, Sequence[Any]],
    batch_size: int,
    device: str,
    overwrite: bool,
    quiet: bool,
) -> tuple[Any, dict[str, Any]]:
    """Draw what is missing of some groups of requests; returns the gallery, and facts for the report."""
    from instancediffusion.checkpoints import weights_sha256
    from instancediffusion.evaluation.gallery import Gallery, make_pictures
    from instancediffusion.pipeline.loading import local_model, model_defaults

    from .study_ablation import open_pipeline

    folder = local_model(model)
    settings, weights = model_defaults(folder), weights_sha256(folder)
    asked = {name: [[one.scene.to_dict(), one.seed] for one in some] for name, some in groups.items()}
    decisive = {"weights": weights, "settings": settings.decisive(), "asked": asked}
    gallery = Gallery(output, decisive, replace=overwrite)
    pipeline = None
    for name, some in groups.items():
        missing = gallery.missing(name, len(some))
        if not missing:
            continue
        pipeline = pipeline or open_pipeline(folder, device)
        counter = Countdown(f"{name}: pictures", sum(map(len, missing)), quiet=quiet)
        for chunk in missing:
            made = make_pictures(pipeline, [some[k] for k in chunk], settings, batch_size, counter.add)
            gallery.put(name, chunk, made)
    return gallery, {"model": model, "weights": weights, "settings": settings.to_dict(), **gallery.summary()}
