"""What the studio can do, one method for each thing; the page and `gradio_client` call the same ones."""

# No `from __future__ import annotations`: Gradio reads the types of the operations from their signatures.

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from instancediffusion import __version__
from instancediffusion.errors import InstanceDiffusionError, ModelError, Problem, SceneError, SettingsError
from instancediffusion.scene import Scene, scene_text, written
from instancediffusion.studio import controls
from instancediffusion.studio.bounds import RefusedError
from instancediffusion.studio.drafts import DraftStore, check_session
from instancediffusion.studio.engine import Engine
from instancediffusion.studio.examples import Examples
from instancediffusion.studio.grids import ORDER
from instancediffusion.studio.intake import decoded, read_file
from instancediffusion.studio.jobs import ENDED, Job, JobQueue
from instancediffusion.studio.page_requests import Plan, plan_of
from instancediffusion.studio.scene_checks import Checked, check
from instancediffusion.studio.shelf import PictureStore, Shelf


class Studio:
    """The operations of one studio. Every argument comes from outside and is checked here.

    Args:
        engine: the model, and where its pictures go.
        models: folders of files that can be added to the model; none means `models` beside the pictures.

    Raises of all methods:
        RefusedError: beyond a bound, or about something that does not exist.
        SceneError, SettingsError, ModelError: a scene, an option or an addition that cannot be used.
    """

    def __init__(self, engine: Engine, models: Sequence[Path] = ()) -> None:
        self.engine, self.limits, self.store = engine, engine.limits, engine.store
        self.drafts = DraftStore(self.store.root / "drafts", self.limits.draft_bytes, self.limits.drafts)
        self.examples = Examples()
        pictures = PictureStore(self.store.root / "pictures", self.limits)
        self.shelf = Shelf(models or [self.store.root / "models"], pictures, self.limits)
        self.queue = JobQueue(engine.work, self.limits)

    def about(self) -> dict[str, Any]:
        """What the page has to know of the model and the bounds."""
        defaults, limits = self.engine.defaults, self.limits
        return {
            "version": __version__,
            "model": self.engine.asked_for,
            "device": str(self.engine.pipeline.device),
            "small_vocabulary": bool(self.engine.vocabulary),
            "vocabulary": sorted(self.engine.vocabulary),
            "controls": controls.described(defaults),
            "presets": controls.described_presets(defaults),
            "order_axis": ORDER,
            "limits": {
                name: getattr(limits, name)
                for name in (
                    "min_side_px",
                    "max_side_px",
                    "max_aspect",
                    "instances",
                    "pictures",
                    "steps",
                    "upload_bytes",
                )
            },
        }

    def check(self, scene: str, options: dict[str, Any] | None = None) -> dict[str, Any]:
        """Check a scene, and with options return what they would cost.

        Args:
            scene: the text of a scene file, native or published format.
            options: see `plan_of`.

        Returns:
            `ok`; `problems` (path, message, fix, severity and the index of the instance; those of the options have the
            path `$options`); where it is ok `scene` and `text` (native format), `size` of the picture, `rows` (the
            NFE) and `seconds`, if known.
        """
        checked = check(_text(scene), self.limits, self.engine.vocabulary)
        if checked.scene is not None:
            checked = replace(checked, problems=(*checked.problems, *self.engine.doubts(checked.scene)))
        answer: dict[str, Any] = {
            "ok": checked.scene is not None,
            "problems": checked.shown(),
            "format": checked.format,
        }
        if checked.scene is None:
            return answer
        try:
            plan, size = self._plan(checked.scene, options)
        except (SceneError, SettingsError, ModelError, RefusedError) as error:
            return answer | {"ok": False, "problems": [*answer["problems"], *_problems(error, "$options")]}
        answer |= {
            "scene": checked.scene.to_dict(),
            "text": scene_text(checked.scene),
            "size": list(size),
            "rows": plan.rows,
            "pictures": plan.pictures,
            "seconds": self.engine.seconds(plan.rows),
        }
        return answer

    def convert(self, scene: str, format: str) -> str:
        """The text of a scene file in another format: a name of `scene.written()`, such as `"official"`."""
        if format not in written():
            raise RefusedError(f"format: use one of {', '.join(written())}")
        return scene_text(check(_text(scene), self.limits).settled(), format=format)

    def open_file(self, data: str, width: int, height: int) -> dict[str, Any]:
        """Read a file that was dropped on a canvas of `width` x `height` pixels.

        Args:
            data: its bytes in base64.
            width: of the canvas.
            height: of the canvas.

        Returns:
            What `read_file` returns; for a file that cannot be used, `kind` is `"refused"` and `problems` say why.
        """
        for name, side in (("width", width), ("height", height)):
            if not isinstance(side, int) or isinstance(side, bool) or not 1 <= side <= self.limits.max_side_px:
                raise RefusedError(f"{name}: give a whole number from 1 to {self.limits.max_side_px}")
        try:
            return read_file(decoded(data, self.limits), (height, width), self.limits, self.engine.vocabulary)
        except (SceneError, RefusedError) as error:
            return {"kind": "refused", "problems": _problems(error, "$")}

    def submit(self, scene: str, options: dict[str, Any] | None, session: str) -> dict[str, Any]:
        """Queue a request and return its job, as `job` does.

        Args:
            scene: the text of a scene file.
            options: see `plan_of`.
            session: a name of the caller's own choice, not predictable by others.
        """
        checked = check(_text(scene), self.limits)
        plan, _ = self._plan(checked.settled(), options)
        if plan.edit is not None:
            self.store.file(plan.edit.run, plan.edit.file)
        return self.shown(self.queue.submit(check_session(session), plan, plan.scene.prompt[:120]))

    def additions(self) -> dict[str, Any]:
        """What can be added to the model: `files` of weights, `folders` of models, and the `places` they lie in."""
        return {**self.shelf.listing(), "places": list(map(str, self.shelf.folders))}

    def keep_picture(self, data: str, name: str) -> dict[str, Any]:
        """Keep a picture for a ControlNet or an IP-Adapter.

        Args:
            data: the bytes of a PNG, JPEG or WebP file in base64.
            name: of the file.

        Returns:
            Its `id`, which options name it by, and its `name`.
        """
        return self.shelf.pictures.put(data, name)

    def job(self, job: str) -> dict[str, Any]:
        """How far a job is."""
        return self.shown(self.queue.get(job))

    def jobs(self, session: str) -> list[dict[str, Any]]:
        """The jobs of a session that wait or run, oldest first."""
        return [self.shown(job) for job in self.queue.of_session(check_session(session)) if job.state not in ENDED]

    def cancel(self, job: str) -> dict[str, Any]:
        """End a job: at once if it waits, within one step if it runs."""
        found = self.queue.cancel(job)
        self.engine.interrupt(found)
        return self.shown(found)

    def results(self, limit: int = 24, before: str | None = None) -> list[dict[str, Any]]:
        """The newest results, or those older than `before`."""
        if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= self.limits.page:
            raise RefusedError(f"limit: give a whole number from 1 to {self.limits.page}")
        if before is not None:
            self.store.path(before)
        return [self._linked(summary) for summary in self.store.listing(limit, before)]

    def result(self, run: str) -> dict[str, Any]:
        """One result with its scenes, settings, and what was asked for."""
        return self._linked(self.store.details(run))

    def example_list(self) -> list[dict[str, Any]]:
        """The scenes that come with the package."""
        return [{**entry, "thumbnail": f"/studio/examples/{entry['name']}.png"} for entry in self.examples.listing()]

    def example(self, name: str) -> dict[str, Any]:
        """One of them."""
        scene = check(scene_text(self.examples.scene(name)), self.limits).settled()
        return {"scene": scene.to_dict(), "text": scene_text(scene)}

    def save_draft(self, session: str, draft: str) -> int:
        """Keep what a session was drawing; returns its length in bytes."""
        return self.drafts.save(session, _text(draft, "draft"))

    def load_draft(self, session: str) -> str | None:
        """What a session was drawing, or None."""
        return self.drafts.load(session)

    def shown(self, job: Job) -> dict[str, Any]:
        """A job as the page reads it."""
        return {
            "job": job.id,
            "state": job.state,
            "title": job.title,
            "ahead": self.queue.position(job),
            "error": job.error,
            "result": job.run if job.state in ENDED else None,
            "previews": [
                f"/studio/jobs/{job.id}/{index}.png?{job.preview_count}" for index in range(len(job.previews))
            ],
            "preview_count": job.preview_count,
            "running_seconds": round((job.ended or time.time()) - job.started, 2) if job.started else 0.0,
            **job.progress,
        }

    def preview(self, job: str, index: int) -> bytes:
        """A PNG of the newest preview of a job."""
        previews = self.queue.get(job).previews
        if not 0 <= index < len(previews):
            raise RefusedError("preview: there is none")
        return previews[index]

    def close(self) -> None:
        """Stop the running job and the worker."""
        self.queue.close(interrupt=self.engine.interrupt)

    def _plan(self, scene: Scene, options: dict[str, Any] | None) -> tuple[Plan, tuple[int, int]]:
        """What is asked for, and the (height, width) of its largest picture."""
        plan = plan_of(scene, options, self.engine.defaults, self.limits, self.shelf)
        self.engine.check_references(plan)
        return plan, self.engine.picture_size(plan)

    def _linked(self, summary: dict[str, Any]) -> dict[str, Any]:
        base = f"/studio/runs/{summary['id']}"
        pictures = [{**picture, "url": f"{base}/{picture['file']}"} for picture in summary["pictures"]]
        return {**summary, "pictures": pictures, "zip": f"{base}.zip", "scene_url": f"{base}/scene.json"}


def _problems(error: InstanceDiffusionError, path: str) -> list[dict[str, Any]]:
    """The problems of an error as the page reads them."""
    found = (
        error.problems if isinstance(error, SceneError) else [Problem(path, line) for line in str(error).splitlines()]
    )
    return Checked(None, "", tuple(found)).shown()


def _text(value: object, name: str = "scene") -> str:
    if not isinstance(value, str):
        raise RefusedError(f"{name}: send its text, a string")
    return value
