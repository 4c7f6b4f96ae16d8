"""The queue: in order, bounded, and each job's failure its own."""

import threading
import time

import pytest

from instancediffusion.errors import ModelError
from instancediffusion.studio.bounds import Limits, RefusedError
from instancediffusion.studio.jobs import ENDED, CancelledError, JobQueue

LIMITS = Limits(queue=5, jobs_of_session=3, finished_jobs=4)


@pytest.fixture
def queue_of():
    made = []

    def make(work, limits=LIMITS):
        made.append(JobQueue(work, limits))
        return made[-1]

    yield make
    for queue in made:
        queue.close(5)


def until(condition, seconds=5):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.002)


def ended(*jobs):
    until(lambda: all(job.state in ENDED for job in jobs))


def test_jobs_run_one_at_a_time_in_the_order_they_came(queue_of):
    running, order = threading.Semaphore(1), []

    def work(job):
        assert running.acquire(blocking=False)
        time.sleep(0.005)
        order.append(job.request)
        running.release()

    queue = queue_of(work)
    jobs = [queue.submit(f"session {k}", k) for k in range(5)]
    ended(*jobs)
    assert order == [0, 1, 2, 3, 4]
    assert {job.state for job in jobs} == {"done"}


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ModelError("no such thing"), "no such thing"),
        (OSError("disk full"), "disk full"),
        (MemoryError(), "memory"),
        (ZeroDivisionError("secret detail"), "internal error (ZeroDivisionError)"),
        (RecursionError(), "internal error"),
    ],
)
def test_a_failing_job_leaves_the_others_alone(queue_of, error, told):
    def work(job):
        if job.request is not None:
            raise job.request

    queue = queue_of(work)
    first, bad, last = queue.submit("a", None), queue.submit("b", error), queue.submit("c", None)
    ended(first, bad, last)
    assert (first.state, bad.state, last.state) == ("done", "failed", "done")
    assert told in bad.error
    assert "secret" not in bad.error
    assert "\n" not in bad.error


def test_a_running_job_is_told_to_stop_and_a_waiting_one_never_starts(queue_of):
    started, ran = threading.Event(), []

    def work(job):
        ran.append(job.id)
        started.set()
        if not job.stop.wait(5):
            raise AssertionError("nobody stopped it")
        raise CancelledError

    queue = queue_of(work)
    running, waiting = queue.submit("a", 0), queue.submit("b", 0)
    assert started.wait(5)
    assert (queue.position(running), queue.position(waiting)) == (0, 1)
    queue.cancel(waiting.id)
    assert waiting.state == "cancelled"
    queue.cancel(running.id)
    ended(running)
    assert running.state == "cancelled"
    assert ran == [running.id]
    queue.cancel(running.id)  # twice is as good as once
    again = queue.submit("a", 0)
    until(lambda: again.state == "running")  # the worker is free


def test_the_queue_and_each_session_are_bounded(queue_of):
    stop = threading.Event()
    queue = queue_of(lambda job: stop.wait(5))
    first = queue.submit("worker", 0)
    until(lambda: first.state == "running")
    for k in range(3):
        queue.submit("one", k)
    with pytest.raises(RefusedError, match="your jobs"):
        queue.submit("one", 3)
    queue.submit("two", 0)
    queue.submit("two", 0)
    with pytest.raises(RefusedError, match="queue is full"):
        queue.submit("three", 0)
    stop.set()


def test_ended_jobs_are_forgotten_in_time(queue_of):
    queue = queue_of(lambda job: None)
    jobs = []
    for k in range(12):
        jobs.append(queue.submit(str(k), k))
        ended(jobs[-1])
    until(lambda: not queue.busy)
    for job in jobs[:8]:
        with pytest.raises(RefusedError, match="no such job"):
            queue.get(job.id)
    assert queue.get(jobs[-1].id) is jobs[-1]
    assert all(job.request is None for job in jobs)


@pytest.mark.parametrize("name", ["", "nobody", None, 3, ["x"], "../x"])
def test_an_unknown_job_is_refused(queue_of, name):
    with pytest.raises(RefusedError, match="job"):
        queue_of(lambda job: None).get(name)


def test_closing_ends_everything(queue_of):
    queue = queue_of(lambda job: job.stop.wait(5))
    running, waiting = queue.submit("a", 0), queue.submit("b", 0)
    until(lambda: running.state == "running")
    start = time.monotonic()
    queue.close(5)
    assert time.monotonic() - start < 4
    assert waiting.state == "cancelled"
    with pytest.raises(RefusedError, match="shutting down"):
        queue.submit("c", 0)
