"""`instancediffusion study ablation`: what each part of a model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from instancediffusion.choices import precision_fact

from .judge import JUDGE
from .libraries import quieten_libraries
from .progress import Countdown
from .settings_options import settings_of, settings_options

_COUNT = click.IntRange(min=1)


@click.command()
@click.option("--model", default="mini", show_default=True, help="mini, a folder or a hub id.")
@JUDGE
@click.option("-o", "--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to fill.")
@click.option(
    "--layouts", type=_COUNT, default=10, show_default=True, help="Layouts of different and of the same class."
)
@click.option(
    "--told",
    multiple=True,
    default=("box", "box+point+scribble+mask"),
    show_default=True,
    help="How locations are given: a kind of location, or several joined by +; repeatable, a table for each.",
)
@click.option("--row", "names", multiple=True, help="One row beside the whole model; repeatable. Default: all.")
@settings_options(alone=True)
@click.option("--device", default="cpu", show_default=True, help="Where the model runs.")
@click.option("--overwrite", is_flag=True, help="Throw pictures of another model in the folder away.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def ablation(
    model: str,
    judge_folder: Path,
    output: Path,
    layouts: int,
    told: tuple[str, ...],
    names: tuple[str, ...],
    device: str,
    overwrite: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Draw the same layouts without each part of a model, and with some parts alone.

    OUTPUT gets the pictures, ablation.md (a table for each way of giving locations), ablation.json and the numbers of
    each picture (rows.jsonl). Parts a model lacks are named and not measured. The same command again makes only what is
    missing.
    """
    quieten_libraries(bars=False)
    from instancediffusion.checkpoints import model_defaults, weights_sha256
    from instancediffusion.pipeline.loading import local_model
    from instancediffusion.pipeline.opening import open_quietly
    from instancediffusion.projects.emoji_judge import Judge
    from instancediffusion.projects.overlap_study.ablation import AblationRun, rows_for
    from instancediffusion.projects.overlap_study.ablation_report import write_ablation
    from instancediffusion.projects.overlap_study.design import study_world
    from instancediffusion.projects.overlap_study.flip_and_grid import flip_cells

    kinds = tuple(dict.fromkeys(_joined_kinds(text) for text in told))
    folder = local_model(model)
    defaults = settings_of(model_defaults(folder), options)
    pipeline = open_quietly(folder, device=device)
    rows, left = rows_for(pipeline.adapter, defaults, names)
    judge = Judge.load(judge_folder)
    run = AblationRun(output, list(flip_cells(study_world(), layouts, kinds)), rows, defaults, judge)
    weights = weights_sha256(folder)
    run.claim({"weights": weights, **precision_fact(device)}, replace=overwrite)
    missing = run.missing()
    if missing:
        run.make(pipeline, missing, Countdown("pictures", len(missing), quiet=quiet).add)
    facts: dict[str, Any] = {"model": model, "weights": weights, "layouts": layouts, "told": list(kinds)}
    facts |= {"settings": defaults.to_dict(), "judge": judge.describe()}
    for path in write_ablation(run, left, facts, lambda what, total: Countdown(what, total, quiet=quiet).add):
        if not quiet:
            click.echo(str(path))


def _joined_kinds(text: str) -> str:
    from instancediffusion.scene import KINDS

    kinds = tuple(dict.fromkeys(kind.strip() for kind in text.split("+")))
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise click.BadParameter(f"{', '.join(unknown)!r}: choose from {', '.join(KINDS)}", param_hint="--told")
    return "+".join(kinds)
