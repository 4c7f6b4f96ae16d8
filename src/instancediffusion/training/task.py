"""What a stage hands to the loop, and where the random numbers of a step come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from instancediffusion.training.attention import WrittenOutAttention


class Task(Protocol):
    """What a stage trains."""

    modules: Mapping[str, nn.Module]
    """The trained modules by name."""

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Return the loss and numbers to log; must depend on nothing but weights, data, `step` and `state()`."""
        ...

    def preview(self, step: int, path: Path) -> None:
        """Write a picture of what the modules can do now."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what else the steps depend on (called when a checkpoint is written; may look for new data)."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""
        ...


@dataclass(frozen=True)
class Place:
    """The device of a process, and the part of every batch that is its own.

    Attributes:
        device: holds the modules.
        rank: number of the process.
        count: number of processes.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    count: int = 1

    def share(self, size: int) -> slice:
        """This process's part of `size` items; `count` divides `size` (see `Schedule.check_shares`)."""
        part = size // self.count
        return slice(self.rank * part, (self.rank + 1) * part)

    def autocast(self, precision: str) -> torch.autocast:
        """A context that computes in bfloat16 where it is safe, if precision is "bf16"."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16")

    @contextmanager
    def computing(self, precision: str) -> Iterator[None]:
        """A context for networks with attention whose gradients are needed: `autocast`, and what is fast on a CPU."""
        with ExitStack() as contexts:
            if self.device.type == "cpu":
                contexts.enter_context(WrittenOutAttention())
            contexts.enter_context(self.autocast(precision))
            yield


@runtime_checkable
class Placed(Protocol):
    """A task that can compute a part of a batch, on any device.

    A task that cannot computes every batch whole, on the CPU; on several processes that is right, and no faster.
    """

    def place(self, place: Place) -> None:
        """Move everything to that device, and from now on take that part of every batch."""
        ...


class OnDevice:
    """A task that computes on the device it was moved to last, with all modules that `_placed` names."""

    where = Place()

    def place(self, place: Place) -> None:
        """Compute on that device, and that part of every batch."""
        self.where = place
        for module in self._placed():
            module.to(place.device)

    def _placed(self) -> Iterable[nn.Module]:
        """What is moved to the device."""
        modules: Mapping[str, nn.Module] = self.modules  # type: ignore[attr-defined]
        return modules.values()


@runtime_checkable
class Scored(Protocol):
    """A task that can say how good its modules are."""

    def scores(self) -> Mapping[str, float]:
        """Return numbers by name, none without a scorer."""
        ...


def step_seed(seed: int, step: int, purpose: int = 0) -> int:
    """Return the seed of one step's random numbers; seeds of different steps, runs and purposes are unrelated."""
    return int(np.random.SeedSequence([seed, step, purpose]).generate_state(2, np.uint32).view(np.uint64)[0] >> 1)


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return the generator that everything random in a step is drawn from, on the CPU whatever computes the step."""
    return torch.Generator().manual_seed(step_seed(seed, step))
