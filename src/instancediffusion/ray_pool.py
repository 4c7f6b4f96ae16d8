"""Work spread over the processes and machines of a Ray cluster; nothing else of the package knows Ray.

A pool of actors opens a model once each and works items off; Ray Data hands them out, and does those of an actor or
machine that is lost again on another. Results come back to the process that asked, which alone writes: each once.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

from .errors import ModelError, SceneWarning, SettingsError

Opened = TypeVar("Opened")
Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_BLOCKS = 10_000
"""Items beyond this number share what Ray schedules, and does again if it is lost."""


@dataclass(frozen=True)
class RayOptions:
    """A cluster and what is used of it.

    Attributes:
        address: of a cluster that runs, such as `auto` or `ray://host:10001`; None starts one on this machine.
        actors: how many models are open at a time; None: as many as the GPUs hold, without any one on each machine.
        gpus: GPUs of each actor, also a fraction of one; None: one if the cluster has any, else 0.
        cpus: cores of each actor; None: one beside a GPU, else those of the smallest machine.
    """

    address: str | None = None
    actors: int | None = None
    gpus: float | None = None
    cpus: float | None = None


class _Sealed:
    """A value that Ray Data passes on as it is, rather than as columns of numbers."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Worker:
    """An actor: opens the model when it starts. That it cannot is an answer, so that no one tries for ever."""

    def __init__(self, open_: Callable[[], Any], apply: Callable[[Any, Any], Any]) -> None:
        self._apply, self._opened, self._fault = apply, None, ""
        try:
            self._opened = open_()
        except Exception as error:  # noqa: BLE001  it is reported where the results go
            self._fault = str(error) or type(error).__name__

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Work off an item."""
        if self._fault:
            return {"index": row["index"], "fault": self._fault, "result": None}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", SceneWarning)
            result = self._apply(self._opened, row["item"].value)
        messages = [str(one.message) for one in caught if issubclass(one.category, SceneWarning)]
        return {"index": row["index"], "fault": "", "result": _Sealed((result, messages))}


def ray_map(
    open_: Callable[[], Opened],
    apply: Callable[[Opened, Item], Result],
    items: Sequence[Item],
    options: RayOptions,
) -> Iterator[tuple[int, Result]]:
    """Work items off on a cluster.

    Args:
        open_: opens the model, in each actor once. The package and what it opens have to be on every machine.
        apply: works an item off. It is done again where an actor is lost, so it leaves nothing behind.
        items: sent to the actors as they are.
        options: the cluster.

    Yields:
        The number of an item and its result, each once, in the order in which they are done. Warnings about scenes are
        raised here again.

    Raises:
        SettingsError: Ray is not installed, there is no cluster at the address, or it lacks what is asked for.
        ModelError: the model cannot be opened there, or Ray gave up.
    """
    if not items:
        return
    ray = _ray()
    started = _connect(ray, options.address)
    try:
        needs = _needs(ray, options)
        data = ray.data.from_items(
            [{"index": index, "item": _Sealed(item)} for index, item in enumerate(items)],
            override_num_blocks=min(len(items), MAX_BLOCKS),
        ).map(_Worker, fn_constructor_args=(open_, apply), **needs)
        with closing(_rows(data)) as rows:
            for row in rows:
                if row["fault"]:
                    raise ModelError(row["fault"])
                result, messages = row["result"].value
                for text in messages:
                    warnings.warn(text, SceneWarning, stacklevel=2)
                yield int(row["index"]), result
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ModelError(f"ray: {lines[-1] if lines else type(error).__name__}") from error
    finally:
        if started:
            ray.shutdown()


def _rows(data: Any) -> Generator[dict[str, Any]]:
    """Rows as they are done. Nothing is fetched ahead: Ray Data's thread for that outlives a reader who stops early."""
    for batch in data.iter_batches(batch_size=None, prefetch_batches=0):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage statistics are sent
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise SettingsError("engine: Ray is not installed; pip install 'instancediffusion[ray]'") from error
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray


def _connect(ray: Any, address: str | None) -> bool:
    """Join a cluster, or start one here; returns whether it is ours to leave."""
    if ray.is_initialized():
        return False
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    options |= {"include_dashboard": False} if address is None else {"address": address}
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SettingsError(f"address: no Ray cluster can be used at {address or 'this machine'} ({reason})") from error
    return True


def _needs(ray: Any, options: RayOptions) -> dict[str, Any]:
    """What `map` is given of the actors."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = options.gpus if options.gpus is not None else float(any(node.get("GPU") for node in nodes))
    cores = [node["CPU"] for node in nodes if node.get("CPU", 0) >= 1]
    cpus = options.cpus or (1.0 if gpus or not cores else min(cores))
    room = [int(min(node.get("CPU", 0) / cpus, node.get("GPU", 0) / gpus if gpus else 1e9)) for node in nodes]
    if not any(room):
        raise SettingsError(f"engine: no machine of the Ray cluster has {cpus:g} CPUs and {gpus:g} GPUs; ask for less")
    actors = min(options.actors or sum(room), sum(room))
    return {"compute": ray.data.ActorPoolStrategy(size=actors), "num_cpus": cpus, "num_gpus": gpus}
