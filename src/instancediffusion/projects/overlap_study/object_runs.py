"""The runs of `study captions` and `study seeds`: generate what is missing, evaluate, write the reports."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from instancediffusion.checkpoints import model_defaults, weights_sha256
from instancediffusion.choices import precision_fact
from instancediffusion.evaluation import EvaluationReport, Evaluator, Judged, PictureJudge, to_markdown
from instancediffusion.evaluation.gallery import Counter, Gallery, make_pictures
from instancediffusion.pipeline.loading import local_model
from instancediffusion.pipeline.opening import open_quietly
from instancediffusion.projects.emoji_world import World, WorldSpec
from instancediffusion.projects.emoji_world.catalogue import FIRST_CORE
from instancediffusion.runs import write_atomic, write_json

from .design import WORLD_PX
from .single_objects import Request, caption_requests, mean_distance, read_captions, seed_requests

Progress = Callable[[str, int], Counter]


def object_world() -> World:
    """Open the world whose objects are generated one to a picture."""
    return World.load(spec=WorldSpec(size=WORLD_PX, objects=FIRST_CORE, part_share=0.0))


def run_captions(file: Path, judge: PictureJudge, drawn: Drawn) -> float:
    """Generate each caption of a file in a box, one to a picture, and evaluate whether the class it names is there.

    Writes report.json, report.md and captions.jsonl, a line for each caption with the class detected at its location.

    Args:
        file: see `read_captions`.
        judge: the evaluator.
        drawn: makes the pictures.

    Returns:
        The fraction of captions whose class is detected.
    """
    requests = list(caption_requests(object_world(), read_captions(file)))
    gallery, facts = drawn({"captions": requests})
    lines: list[str] = []

    def judged(one: Judged) -> None:
        score = one.scores[0]
        right = bool(score.kind_right)
        lines.append(
            json.dumps({"caption": one.truth.name, "class": score.name, "seen": score.seen_as, "right": right})
        )

    pairs = ((gallery.picture("captions", k), request.truth) for k, request in enumerate(requests))
    group = Evaluator(judge).group("captions", pairs, judged)
    right: float = sum(json.loads(line)["right"] for line in lines) / len(lines)
    report = EvaluationReport((group,), {**facts, "right_class_of_all": round(right, 4)}, judge.describe())
    output = gallery.run.path
    report.save(output / "report.json")
    write_atomic(output / "report.md", to_markdown(report))
    write_atomic(output / "captions.jsonl", "\n".join(lines) + "\n")
    return right


def run_seeds(objects: int, seeds: int, drawn: Drawn) -> Iterator[str]:
    """Generate captions many times each, and compare how far the pictures differ with the world's own.

    Writes seeds.json: for each caption the mean distance of two pictures within the box, of the model and of the world.

    Args:
        objects: captions, each with a box of its own.
        seeds: pictures of each.
        drawn: makes the pictures.

    Yields:
        What was found, line by line.
    """
    groups = {f"object{number}": some for number, some in enumerate(seed_requests(object_world(), objects, seeds))}
    gallery, facts = drawn(groups)
    rows: list[dict[str, Any]] = []
    for name, requests in groups.items():
        own = mean_distance([gallery.picture(name, number) for number in range(len(requests))], requests[0].box)
        best = mean_distance([request.composite for request in requests], requests[0].box)
        rows.append({"caption": requests[0].truth.name, "model": own, "world": best, "ratio": own / best})
    mean = sum(row["ratio"] for row in rows) / len(rows)
    write_json(gallery.run.path / "seeds.json", {"facts": facts, "ratio": mean, "captions": rows})
    for row in rows:
        yield "{caption}: model {model:.3f}, world {world:.3f}, ratio {ratio:.2f}".format(**row)
    yield f"mean ratio {mean:.2f}"


class Drawn:
    """Generates what is missing of some groups of requests in a folder.

    Args:
        model: mini, a folder or a hub id.
        output: the folder.
        batch_size: pictures made together.
        device: where the model runs.
        overwrite: make pictures again that are there with other settings.
        progress: makes a counter of some work.
    """

    def __init__(
        self, model: str, output: Path, *, batch_size: int, device: str, overwrite: bool, progress: Progress
    ) -> None:
        self._model, self._output, self._device = model, output, device
        self._batch_size, self._overwrite, self._progress = batch_size, overwrite, progress

    def __call__(self, groups: Mapping[str, Sequence[Request]]) -> tuple[Gallery, dict[str, Any]]:
        """Generate; returns the gallery, and facts for the report."""
        folder = local_model(self._model)
        settings, weights = model_defaults(folder), weights_sha256(folder)
        asked = {name: [[one.scene.to_dict(), one.seed] for one in some] for name, some in groups.items()}
        decisive = {"weights": weights, "settings": settings.decisive(), "asked": asked}
        decisive |= precision_fact(self._device)
        gallery = Gallery(self._output, decisive, replace=self._overwrite)
        pipeline = None
        for name, some in groups.items():
            missing = gallery.missing(name, len(some))
            if not missing:
                continue
            pipeline = pipeline or open_quietly(folder, device=self._device)
            counter = self._progress(f"{name}: pictures", sum(map(len, missing)))
            for chunk in missing:
                made = make_pictures(pipeline, [some[k] for k in chunk], settings, self._batch_size, counter.add)
                gallery.put(name, chunk, made)
        facts = {"model": self._model, "weights": weights, "settings": settings.to_dict(), **gallery.summary()}
        return gallery, facts
