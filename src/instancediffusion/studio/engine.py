"""From a plan to pictures in a run directory, with progress, previews, a bound on time, and a stop within one step."""

from __future__ import annotations

import io
import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from instancediffusion.additions import Additions
from instancediffusion.errors import FailureWarning, PicturesError, Problem, SceneError, SceneWarning, SettingsError
from instancediffusion.pipeline.calibration import calibrate_anew
from instancediffusion.pipeline.picture_folder import Picture, PictureFolder, batches
from instancediffusion.pipeline.references import has_ip_adapter
from instancediffusion.runs import fingerprint
from instancediffusion.scene import Scene, scene_text
from instancediffusion.settings import GenerationSettings
from instancediffusion.studio.bounds import Limits, RefusedError
from instancediffusion.studio.cost import rows_of_steps
from instancediffusion.studio.grids import Cell
from instancediffusion.studio.jobs import CancelledError, Job
from instancediffusion.studio.page_requests import Plan
from instancediffusion.studio.store import REQUEST, SCENE_FILE, RunStore

_LOG = logging.getLogger(__name__)
_PREVIEWS = 8
_PREVIEW_SIDE = 384
_BATCH = 4
_READ_CAPTIONS = 4096


class Engine:
    """A loaded model and the folder its pictures go to. One thread uses it at a time.

    Args:
        pipeline: an `InstanceDiffusionPipeline`.
        model: what decides a picture beside scene, settings and seed; see `PictureFolder`.
        asked_for: the name the model was asked for by.
        limits: bounds.
        store: where the pictures go.
    """

    def __init__(
        self, pipeline: Any, model: Mapping[str, Any], asked_for: str, limits: Limits, store: RunStore
    ) -> None:
        self.pipeline, self.model, self.asked_for = pipeline, dict(model), asked_for
        self.limits, self.store = limits, store
        self._job: Job | None = None
        self._timed_rows = self._timed_seconds = 0.0
        self._has_ip_adapter = has_ip_adapter(pipeline.unet)
        self._loaded = Additions().of_model
        self._unload: Callable[[], None] = lambda: None
        self._nearest: dict[str, str | None] = {}
        self._reading = threading.Lock()
        pipeline.set_progress_bar_config(disable=True)

    @property
    def defaults(self) -> GenerationSettings:
        """The settings the model is best run with."""
        settings: GenerationSettings = self.pipeline.default_settings
        return settings

    @property
    def vocabulary(self) -> frozenset[str]:
        """The words the model knows; empty if it may know any."""
        words: frozenset[str] = self.pipeline.vocabulary
        return words

    def doubts(self, scene: Scene) -> Iterator[Problem]:
        """A warning for every caption that is like nothing the model draws; see `pipeline.familiar`."""
        captions = [instance.caption for instance in scene.instances]
        with self._reading:
            new = [caption for caption in dict.fromkeys(captions) if caption not in self._nearest]
            if len(self._nearest) + len(new) > _READ_CAPTIONS:
                self._nearest, new = {}, list(dict.fromkeys(captions))
            self._nearest.update(dict.fromkeys(new) | self._strangers(new))
            found = [self._nearest[caption] for caption in captions]
        for index, nearest in enumerate(found):
            if nearest is not None:
                message = f"the model draws nothing like it; what is nearest is {nearest!r}"
                yield Problem(f"$.instances[{index}].caption", message, "", "warning")

    def _strangers(self, captions: Sequence[str]) -> dict[str, str]:
        pipe = self.pipeline
        if pipe.text_encoder is None:
            return {}
        found = pipe.familiar.strangers(captions, pipe.tokenizer, pipe.text_encoder, pipe.device)
        return {caption: nearest for caption, nearest, _ in found}

    def picture_size(self, plan: Plan) -> tuple[int, int]:
        """(height, width) in pixels of the largest picture of a plan.

        Raises:
            RefusedError: it is larger than the studio makes.
        """
        sizes = [self.pipeline.picture_size(cell.scene, cell.settings) for cell in plan.cells]
        largest: tuple[int, int] = max(sizes, key=lambda size: size[0] * size[1])
        if largest[0] * largest[1] > self.limits.picture_pixels:
            raise RefusedError(
                f"the picture would have {largest[1]} x {largest[0]} pixels; "
                f"the studio makes at most {self.limits.picture_pixels:,}"
            )
        return largest

    def check_references(self, plan: Plan) -> None:
        """Raise `SceneError` for a reference picture of an instance that no IP-Adapter would look at.

        Raises:
            SettingsError: there is an IP-Adapter, and nothing for it to look at.
        """
        with_reference = [number for number, one in enumerate(plan.scene.instances) if one.reference is not None]
        asked = plan.additions
        if with_reference and asked.ip_adapter is None and not self._has_ip_adapter:
            path, message = f"$.instances[{with_reference[0]}].reference", "the model has no IP-Adapter"
            raise SceneError([Problem(path, message, "add one under Additions, or remove the picture")])
        if asked.ip_adapter is not None and asked.ip_adapter_image is None and not with_reference:
            raise SettingsError("ip_adapter.picture: there is none; choose one, or give an object a reference picture")

    def load(self, additions: Additions) -> None:
        """Bring the model to the LoRA files, textual inversions and IP-Adapter of a job; most jobs have those before.

        Raises:
            ModelError: one cannot be loaded; the model then has none of them.
            SettingsError: an IP-Adapter for a model that is computed in int8; the same.
        """
        wanted = additions.of_model
        if self._loaded == wanted:
            return
        unload, self._unload, self._loaded = self._unload, lambda: None, Additions().of_model
        unload()
        self._unload = additions.load(self.pipeline)
        try:
            calibrate_anew(self.pipeline)
        except BaseException:
            unload, self._unload = self._unload, lambda: None
            unload()
            raise
        self._loaded = wanted

    def seconds(self, rows: int) -> float | None:
        """How long so many NFE will take, estimated from the last jobs; None before the first."""
        return rows * self._timed_seconds / self._timed_rows if self._timed_rows else None

    def interrupt(self, job: Job) -> None:
        """Stop the network's work if it is this job's; the job notices by itself."""
        if self._job is job:
            self.pipeline.interrupt = True

    def work(self, job: Job) -> None:
        """Make the pictures of `job.request`, a `Plan`.

        Raises:
            CancelledError: the job was asked to stop; pictures that were finished stay.
            PicturesError: some pictures could not be made; the others stay.
            RefusedError: it ran longer than it may.
            ModelError: an addition cannot be loaded.
        """
        plan: Plan = job.request
        self.load(plan.additions)
        run = self.store.new()
        self._job = job
        try:
            with warnings.catch_warnings():
                # The page has shown already what the model does not know.
                warnings.simplefilter("ignore", SceneWarning)
                # Pictures that failed are reported at the end.
                warnings.simplefilter("ignore", FailureWarning)
                _Making(self, job, plan, run).all()
        finally:
            self._job = None
            self.store.discard_empty(run)

    def note_speed(self, rows: int, seconds: float) -> None:
        """Remember how fast the network was. Small jobs count for little: what they take is mostly not the network."""
        self._timed_rows = self._timed_rows / 2 + rows
        self._timed_seconds = self._timed_seconds / 2 + seconds


class _Making:
    """The pictures of one job."""

    def __init__(self, engine: Engine, job: Job, plan: Plan, run: str) -> None:
        self.engine, self.job, self.plan, self.run = engine, job, plan, run
        self.folder = engine.store.path(run)
        self.started = time.monotonic()
        self.total, self.done, self.made = plan.rows, 0, 0
        self.additions = plan.additions
        if plan.edit is not None:
            picture = engine.store.file(plan.edit.run, plan.edit.file)
            redraw = tuple(number + 1 for number in plan.edit.redraw)
            self.additions = replace(plan.additions, edit=picture, redraw=redraw)

    def all(self) -> None:
        failed: list[str] = []
        facts = {**self.engine.model, **self.additions.facts()}
        for cell in self.plan.cells:
            pictures = [Picture(cell.name, cell.scene, seed) for seed in self.plan.seeds]
            folder = PictureFolder(self.folder, facts, cell.settings)
            for scenes, seeds, order in batches(pictures, _BATCH if self.plan.edit is None else 1):
                self._check()
                output = self._call(scenes, seeds, cell)
                self._check()
                for row, picture in enumerate(order):
                    if row in output.failures:
                        failed.append(f"{picture.key}: {output.failures[row]}")
                    else:
                        self._keep(folder, cell, picture, output, row)
        self.engine.note_speed(self.done, time.monotonic() - self.started)
        if failed:
            raise PicturesError("\n".join(failed))

    def _call(self, scenes: Sequence[Any], seeds: Sequence[int], cell: Cell) -> Any:
        rows = rows_of_steps(cell.scene, cell.settings)
        steps, every = len(rows), max(1, len(rows) // _PREVIEWS)

        def on_step(pipeline: Any, step: int, timestep: Any, tensors: Any) -> dict[str, Any]:  # noqa: ARG001
            self.done += rows[min(step, steps - 1)] * len(seeds)
            self._tell(step + 1, steps, len(seeds))
            if self.job.stop.is_set() or self._late():
                pipeline.interrupt = True
            return {}

        self._tell(0, steps, len(seeds))
        options = {
            "callback_on_step_end": on_step,
            "preview": lambda step, images: self.job.show(tuple(_png(image) for image in images)),  # noqa: ARG005
            "preview_every": every,
        }
        return self.additions.maker(self.engine.pipeline, cell.settings, **options)(scenes, seeds)

    def _keep(self, folder: PictureFolder, cell: Cell, picture: Picture, output: Any, row: int) -> None:
        record = {
            "asked_for": self.engine.asked_for,
            "device": str(self.engine.pipeline.device),
            "cell": [cell.column, cell.row],
        }
        if self.made == 0:
            self._put_request(folder)
        folder.put_overlay(picture.name, picture.scene)
        folder.put(picture, output, row, record)
        self.made += 1
        self.job.run = self.run
        self.job.tell(pictures_done=self.made)

    def _put_request(self, folder: PictureFolder) -> None:
        """Keep the scene as it was sent, and what was asked for."""
        text = scene_text(self.plan.scene)
        asked = {
            "options": dict(self.plan.options),
            "grid": self.plan.grid,
            "seeds": list(self.plan.seeds),
            "asked_for": self.engine.asked_for,
        }
        folder.run.put(REQUEST, fingerprint("request", text, asked), {SCENE_FILE: text}, asked)

    def _check(self) -> None:
        if self.job.stop.is_set():
            raise CancelledError
        if self._late():
            minutes = self.engine.limits.run_seconds / 60
            raise RefusedError(f"it ran longer than the {minutes:g} minutes a job may take; ask for less at once")

    def _late(self) -> bool:
        return time.monotonic() - self.started > self.engine.limits.run_seconds

    def _tell(self, step: int, steps: int, together: int) -> None:
        spent = time.monotonic() - self.started
        share = min(self.done / max(self.total, 1), 1.0)
        left = self.engine.seconds(self.total) if self.done == 0 else spent / share - spent
        self.job.tell(
            step=step,
            steps=steps,
            together=together,
            pictures=self.plan.pictures,
            pictures_done=self.made,
            share=round(share, 4),
            seconds_left=None if left is None else round(left, 1),
        )


def _png(image: Image.Image) -> bytes:
    small = image.copy()
    small.thumbnail((_PREVIEW_SIDE, _PREVIEW_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
