"""The options of `evaluate` that are about suites."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from .click_types import Source

# Written out, so that help needs no torch; a test holds them against those that are registered.
SUITES = ("coco", "pim", "attributes", "fid", "coco-mig", "7bench", "t2i-spatial", "flip")

_ROLES = ("detector", "clip", "features", "phrases", "segmenter", "depth")
_SPELLED = {"phrases": "phrase-detector"}
_FOLDER = Source(file_okay=False)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_Command = TypeVar("_Command", bound=Callable[..., Any])


def judged(bench: dict[str, Any], judge: Path) -> dict[str, Any]:
    """Return options with the folder of an evaluator (judge) of the synthetic world, for the suites that take one."""
    if "flip" not in bench["suites"]:
        raise click.UsageError("--judge goes with --suite flip, or without --suite")
    return bench | {"names": {**bench["names"], "judge": str(judge)}}


def _check(bench: dict[str, Any]) -> None:
    """Refuse options of suites where no suite was asked for."""
    files = ("scenes", "images", "real", "detections", "real_detections")
    given = {f"--{name.replace('_', '-')}": bench[name] for name in files}
    given |= {f"--{_SPELLED.get(role, role)}": name for role, name in bench["names"].items()}
    named = [name for name, value in given.items() if value is not None]
    if named and not bench["suites"]:
        raise click.UsageError(f"{named[0]} goes with --suite ({', '.join(SUITES)})")
    if bench["same_seed"] and ("flip" not in bench["suites"] or bench["images"] is not None):
        raise click.UsageError("--same-seed goes with --suite flip, where pictures are made (without --images)")


def _suites(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in (value or "").split(",") if name.strip()))
    if set(names) <= set(SUITES):
        return names
    # A suite of one's own stands in the registry only, which costs time to import.
    from instancediffusion.evaluation.suites import SUITES as REGISTERED

    if unknown := [name for name in names if name not in REGISTERED]:
        known = dict.fromkeys((*SUITES, *REGISTERED))
        raise click.BadParameter(f"{', '.join(unknown)!r}: choose from {', '.join(known)}", context, parameter)
    return names


def suite_options(command: _Command) -> _Command:
    """Give a command the options of suites, which it gets as `bench`: the fields of `suites.bench.BenchOptions`."""
    options = [
        click.option(
            "--suite", "suites", callback=_suites, help=f"Score by these suites instead: {', '.join(SUITES)}."
        ),
        click.option("--scenes", type=Source(), help="Scenes of a suite: any data set."),
        click.option("--images", type=_FOLDER, help="Pictures of the scenes, from any source; else they are made."),
        click.option(
            "--real", type=_FOLDER, help="Real pictures of the same names: the bound, and the reference of fid."
        ),
        click.option("--detector", help="Suites: detector of a list of classes; hub id or folder."),
        click.option("--detections", type=_FILE, help="Suites: a COCO results file in place of --detector."),
        click.option("--real-detections", type=_FILE, help="Suites: the same of the real pictures."),
        click.option("--clip", help="Suites: CLIP model; hub id or folder."),
        click.option("--phrase-detector", help="Suites: detector that is given what to look for; hub id or folder."),
        click.option("--segmenter", help="Suites: segmenter that is given boxes; hub id or folder."),
        click.option("--depth", help="Suites: depth model; hub id or folder."),
        click.option("--same-seed", is_flag=True, help="Suite flip: make both orders of a pair from one seed."),
        click.option("--features", help="Suites: network of the Frechet distance; hub id, folder or Inception's .pt."),
    ]

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        fields = ("suites", "scenes", "images", "real", "detections", "real_detections", "same_seed")
        bench = {name: kwargs.pop(name) for name in fields}
        named = {role: kwargs.pop(_SPELLED.get(role, role).replace("-", "_")) for role in _ROLES}
        bench["names"] = {role: name for role, name in named.items() if name is not None}
        _check(bench)
        return command(*args, bench=bench, **kwargs)

    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]
