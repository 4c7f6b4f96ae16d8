"""The course of an evaluation: make what is missing, judge, report; group by group."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from instancediffusion.errors import SettingsError
from instancediffusion.evaluation import (
    EvaluationReport,
    Evaluator,
    FeatureStatistics,
    GroupReport,
    Judged,
    to_markdown,
)
from instancediffusion.evaluation.gallery import Counter, Gallery, Made, make_pictures
from instancediffusion.evaluation.sheets import Showcase, judged_sheet
from instancediffusion.projects.emoji_judge import Judge
from instancediffusion.projects.emoji_judge.judge import unknown_words
from instancediffusion.projects.emoji_judge.layouts import (
    FIRST_SEED,
    MIN_OBJECTS,
    REFERENCE_SEED,
    SIDE_PX,
    Layout,
    layout_of,
)
from instancediffusion.projects.emoji_world import World, WorldSample, WorldSpec
from instancediffusion.projects.emoji_world.catalogue import FIRST_CORE
from instancediffusion.ray_pool import RayOptions, ray_map
from instancediffusion.runs import atomic_path, write_atomic
from instancediffusion.scene import Scene

BATCH = 8

UNTRAINED = (
    "judge: pictures of the synthetic world are judged by a network, which has to be trained once: `instancediffusion "
    "judge train recipes/judge.toml --run runs/judge`; then give --judge runs/judge/judge"
)


def layout_world(max_objects: int, side_px: int = SIDE_PX, aspect: float = 1.0) -> World:
    """Open the world whose layouts are sampled: objects of the core classes in all their sprites, without parts."""
    return World.load(
        spec=WorldSpec(
            size=side_px,
            aspect=aspect,
            min_objects=MIN_OBJECTS,
            max_objects=max_objects,
            objects=FIRST_CORE,
            part_share=0.0,
        )
    )


def open_judge(folder: Path | None, max_objects: int, aspect: float = 1.0) -> tuple[Judge, World]:
    """Open a trained judge and the world of its layouts, on canvases of so many times their height as width.

    Raises:
        CheckpointError: the folder holds no judge, or a damaged one.
        SettingsError: no folder is given, or the judge has not learned all words of the world.
    """
    if folder is None:
        raise SettingsError(UNTRAINED)
    judge = Judge.load(folder)
    world = layout_world(max_objects, aspect=aspect)
    check_words(judge, world)
    return judge, world


def check_words(judge: Judge, world: World) -> None:
    """Refuse a judge that has not learned all words of a world.

    Raises:
        SettingsError: naming them.
    """
    if unknown := unknown_words(judge, world):
        raise SettingsError(
            f"judge: it has not learned {', '.join(unknown[:8])}{' ...' if len(unknown) > 8 else ''}; "
            "train it again on this world"
        )


@dataclass
class EvaluationRun:
    """One evaluation.

    Attributes:
        gallery: the pictures.
        world: the layouts are sampled from it.
        judge: the evaluator.
        settings: the `GenerationSettings` of the pictures.
        count: layouts of each group.
        order: state the depth order.
        facts: what the report says of the model.
        open_pipeline: loads the model; called only if a picture is missing.
        batch_size: pictures made together.
        progress: makes a counter of some work.
        engine: the cluster that makes the pictures; None: this process.
    """

    gallery: Gallery
    world: World
    judge: Judge
    settings: Any
    count: int
    order: bool
    facts: Mapping[str, Any]
    open_pipeline: Callable[[], Any]
    batch_size: int
    progress: Callable[[str, int], Counter]
    engine: RayOptions | None = None
    _pipeline: Any = None
    _samples: dict[int, WorldSample] = field(default_factory=dict)

    def go(self, groups: Sequence[str]) -> Iterator[Path]:
        """Make, judge and report each group; yields the files as they are written."""
        evaluator = Evaluator(self.judge, self._reference())
        done: list[GroupReport] = []
        self._spread(groups)
        for group in groups:
            self._make(group)
            showcase, lines = Showcase(), list[str]()
            done.append(self._score(evaluator, group, showcase, lines))
            yield self._write(f"{group}_scores.jsonl", "".join(lines))
            yield self._draw(f"{group}_pictures.png", judged_sheet(showcase.first))
            yield self._draw(f"{group}_worst.png", judged_sheet(showcase.worst))
            report = EvaluationReport(tuple(done), self._facts(), self.judge.describe())
            report.save(self.gallery.run.path / "report.json")
            self._write("report.md", to_markdown(report))
        yield self.gallery.run.path / "report.json"
        yield self.gallery.run.path / "report.md"

    def _spread(self, groups: Sequence[str]) -> None:
        """Make what is missing of all groups on the cluster, if there is one, so that it opens its models once."""
        if self.engine is None:
            return
        chunks = [(group, chunk) for group in groups for chunk in self.gallery.missing(group, self.count)]
        counter = self.progress("pictures", sum(len(chunk) for _, chunk in chunks))
        asked = [[_job(self._layout(group, number)) for number in chunk] for group, chunk in chunks]
        make = partial(_make_chunk, self.settings, self.batch_size)
        for index, made in ray_map(self.open_pipeline, make, asked, self.engine):
            self.gallery.put(*chunks[index], made)
            counter.add(len(chunks[index][1]))

    def _make(self, group: str) -> None:
        missing = self.gallery.missing(group, self.count)
        if not missing:
            return
        self._pipeline = self._pipeline or self.open_pipeline()
        counter = self.progress(f"{group}: pictures", sum(map(len, missing)))
        for chunk in missing:
            layouts = [self._layout(group, number) for number in chunk]
            made = make_pictures(self._pipeline, layouts, self.settings, self.batch_size, counter.add)
            self.gallery.put(group, chunk, made)

    def _score(self, evaluator: Evaluator, group: str, showcase: Showcase, lines: list[str]) -> GroupReport:
        counter = self.progress(f"{group}: judged", self.count)
        pairs = (
            (self.gallery.picture(group, number), self._layout(group, number).truth) for number in range(self.count)
        )

        def judged(one: Judged) -> None:
            showcase.add(one)
            lines.extend(json.dumps(score.to_dict()) + "\n" for score in one.scores)
            counter.add(1)

        return evaluator.group(group, pairs, judged)

    def _layout(self, group: str, number: int) -> Layout:
        """Return a layout; its sample, which all groups share, is made once."""
        if number not in self._samples:
            self._samples[number] = self.world.sample(FIRST_SEED + number)
        return layout_of(self.world, self._samples[number], group, number, order=self.order)

    def _reference(self) -> FeatureStatistics:
        """Return the features of as many composites as a group has pictures, of layouts that no group has."""
        statistics = FeatureStatistics(self.judge.config.hidden)
        counter = self.progress("reference composites", self.count)
        for start in range(0, self.count, BATCH):
            numbers = range(start, min(start + BATCH, self.count))
            images = [self.world.sample(REFERENCE_SEED + number).image for number in numbers]
            for detections in self.judge.look(images):
                if detections.features is not None:
                    statistics.update(detections.features)
            counter.add(len(numbers))
        return statistics

    def _facts(self) -> dict[str, Any]:
        spec = self.world.spec
        layouts = {"first_seed": FIRST_SEED, "objects": f"{spec.min_objects} to {spec.max_objects}"}
        layouts |= {"kinds": len(self.world.kinds), "order_told": self.order, "aspect": spec.aspect}
        return {
            **self.facts,
            "settings": self.settings.to_dict(),
            "layouts": layouts,
            **self.gallery.summary(),
        }

    def _write(self, name: str, text: str) -> Path:
        path = self.gallery.run.path / name
        write_atomic(path, text)
        return path

    def _draw(self, name: str, image: Image.Image) -> Path:
        path = self.gallery.run.path / name
        with atomic_path(path) as temporary:
            image.save(temporary)
        return path


@dataclass(frozen=True)
class _Job:
    scene: Scene
    seed: int


def _job(layout: Layout) -> _Job:
    """Return what a worker of a cluster needs of a layout."""
    return _Job(layout.scene, layout.seed)


def _make_chunk(settings: Any, batch_size: int, pipeline: Any, asked: Sequence[_Job]) -> Made:
    return make_pictures(pipeline, asked, settings, batch_size, lambda _: None)
