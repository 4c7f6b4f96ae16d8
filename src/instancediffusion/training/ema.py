"""EMA weights: what is previewed, scored and exported instead of the last step's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from instancediffusion.training.processes import shared_out


class Ema:
    """Exponential moving average of every parameter of some modules.

    The decay of update k is min(decay, (1 + k) / (10 + k)), so that the random start is forgotten quickly.

    Args:
        modules: names -> modules; their order and their parameters must not change.
        decay: weight of the old average in an update.
    """

    def __init__(self, modules: Mapping[str, nn.Module], decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._live = [p for module in modules.values() for p in module.parameters()]
        self._mean = [p.detach().clone() for p in self._live]

    @torch.no_grad()
    def update(self) -> None:
        """Move the EMA weights towards the present ones."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        if any(isinstance(p, DTensor) for p in self._live):  # some are sharded over the processes, and some are not
            for mean, p in zip(self._mean, self._live, strict=True):
                mean.lerp_(p.detach(), 1 - decay)
            return
        torch._foreach_lerp_(self._mean, [p.detach() for p in self._live], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the EMA weights into the modules for the time of a block."""
        kept = [p.detach().clone() for p in self._live]
        self._copy(self._mean)
        try:
            yield
        finally:
            self._copy(kept)

    def apply(self) -> None:
        """Put the EMA weights into the modules for good."""
        self._copy(self._mean)

    @torch.no_grad()
    def _copy(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self._live, values, strict=True):
            parameter.copy_(value)

    def state_dict(self) -> dict[str, object]:
        """Return what `load_state_dict` needs."""
        return {"updates": self.updates, "mean": self._mean}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Continue an average."""
        mean = state["mean"]
        assert isinstance(mean, list) and isinstance(state["updates"], int)
        self.updates = state["updates"]
        for target, value in zip(self._mean, mean, strict=True):
            target.copy_(shared_out(value, target))
