"""Jobs: one worker, a bounded queue, and a failure that stays that of its job."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from instancediffusion.errors import InstanceDiffusionError
from instancediffusion.studio.bounds import Limits, RefusedError

_LOG = logging.getLogger(__name__)
ENDED = ("done", "failed", "cancelled")


class CancelledError(Exception):
    """Raised inside a job that was asked to stop."""


@dataclass
class Job:
    """One request on its way.

    Attributes:
        id: a random name, not predictable.
        session: of the browser that asked.
        request: what is to be done; the worker knows what it means.
        title: a line for lists.
        state: `"queued"`, `"running"`, `"done"`, `"failed"` or `"cancelled"`.
        progress: what the page shows: step, steps, fraction of the work, seconds left.
        error: why it failed, one line.
        run: id of the result, as soon as there is one.
        previews: PNG files of the newest preview, one for each picture being made.
        version: counts changes, so that a watcher knows whether there is news.
        stop: set to end it.
    """

    id: str
    session: str
    request: Any
    title: str = ""
    state: str = "queued"
    progress: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    run: str | None = None
    previews: tuple[bytes, ...] = ()
    preview_count: int = 0
    version: int = 0
    created: float = field(default_factory=time.time)
    started: float | None = None
    ended: float | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    def tell(self, **progress: Any) -> None:
        """Note how far the job is."""
        self.progress = {**self.progress, **progress}
        self.version += 1

    def show(self, previews: tuple[bytes, ...]) -> None:
        """Note a new preview."""
        self.previews = previews
        self.preview_count += 1
        self.version += 1


class JobQueue:
    """Jobs done one after the other by a thread of their own.

    Args:
        work: does a job; asked to stop by `job.stop`, it raises `CancelledError`.
        limits: bounds of the queue.
    """

    def __init__(self, work: Callable[[Job], None], limits: Limits) -> None:
        self._work, self._limits = work, limits
        self._ready = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._jobs: dict[str, Job] = {}
        self._running: Job | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="studio-worker", daemon=True)
        self._thread.start()

    def submit(self, session: str, request: Any, title: str = "") -> Job:
        """Queue a job.

        Raises:
            RefusedError: the queue is full, or the session has too many jobs in it already.
        """
        with self._ready:
            if self._closed:
                raise RefusedError("the studio is shutting down")
            mine = sum(job.session == session and job.state not in ENDED for job in self._jobs.values())
            if mine >= self._limits.jobs_of_session:
                raise RefusedError(f"{mine} of your jobs are still waiting or running; cancel one, or let it end")
            if len(self._waiting) >= self._limits.queue:
                raise RefusedError(f"the queue is full ({len(self._waiting)} jobs are waiting); try again later")
            job = Job(secrets.token_urlsafe(12), session, request, title)
            self._jobs[job.id] = job
            self._waiting.append(job)
            self._ready.notify()
        return job

    def get(self, job_id: object) -> Job:
        """Return a job by its id.

        Raises:
            RefusedError: there is none, or it ended so long ago that it is forgotten.
        """
        job = self._jobs.get(job_id) if isinstance(job_id, str) else None
        if job is None:
            raise RefusedError("job: there is no such job; finished ones stand under the results")
        return job

    def of_session(self, session: str) -> list[Job]:
        """The jobs of a session, oldest first."""
        with self._ready:
            return [job for job in self._jobs.values() if job.session == session]

    def position(self, job: Job) -> int:
        """How many jobs are before this one; 0 if it runs or has ended."""
        with self._ready:
            if job.state != "queued":
                return 0
            ahead = next((index for index, other in enumerate(self._waiting) if other is job), 0)
            return ahead + (self._running is not None)

    def cancel(self, job_id: object) -> Job:
        """End a job: at once if it waits, within one step if it runs. One that has ended stays as it is."""
        job = self.get(job_id)
        with self._ready:
            job.stop.set()
            if job.state == "queued":
                self._waiting.remove(job)
                self._end(job, "cancelled")
        return job

    @property
    def busy(self) -> bool:
        """Whether a job runs or waits."""
        with self._ready:
            return self._running is not None or bool(self._waiting)

    def close(self, seconds: float = 10.0, interrupt: Callable[[Job], None] | None = None) -> None:
        """Stop the running job, drop the waiting ones and end the thread.

        Args:
            seconds: how long to wait for the running job to stop.
            interrupt: called with the running job, so that it need not end its step.
        """
        with self._ready:
            self._closed = True
            for job in list(self._waiting):
                self._end(job, "cancelled")
            self._waiting.clear()
            if self._running is not None:
                self._running.stop.set()
                if interrupt is not None:
                    interrupt(self._running)
            self._ready.notify_all()
        self._thread.join(seconds)

    def _loop(self) -> None:
        while True:
            with self._ready:
                while not self._waiting and not self._closed:
                    self._ready.wait()
                if self._closed:
                    return
                job = self._running = self._waiting.popleft()
                job.state, job.started = "running", time.time()
                job.version += 1
            state, error = self._done(job)
            with self._ready:
                self._running = None
                job.error = error
                self._end(job, state)

    def _done(self, job: Job) -> tuple[str, str]:
        """Do a job; whatever goes wrong in it ends this job alone."""
        try:
            self._work(job)
        except CancelledError:
            return "cancelled", ""
        except (InstanceDiffusionError, OSError) as error:
            return "failed", str(error).splitlines()[0] if str(error) else type(error).__name__
        except MemoryError:
            return "failed", "there is not enough memory for it; ask for fewer or smaller pictures"
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker and the other jobs go on
            _LOG.exception("a job of the studio failed")
            return "failed", f"internal error ({type(error).__name__}); the terminal shows where"
        return "done", ""

    def _end(self, job: Job, state: str) -> None:
        """Note the end of a job, and forget the oldest ended ones. The lock is held."""
        job.ended, job.state, job.request = time.time(), state, None
        job.version += 1
        ended = [other for other in self._jobs.values() if other.state in ENDED]
        for other in ended[: max(0, len(ended) - self._limits.finished_jobs)]:
            del self._jobs[other.id]
        for other in ended[:-8]:
            other.previews = ()
