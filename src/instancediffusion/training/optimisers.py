"""AdamW, or Muon for the matrices (and kernels) and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from instancediffusion.errors import SettingsError
from instancediffusion.training.config import OptimiserConfig

NARROW = 16
"""Kernels with fewer channels on either side are left to AdamW."""


class Optimiser(Protocol):
    """What the loop asks of an optimiser."""

    param_groups: list[dict[str, Any]]

    def step(self) -> Any:
        """Change the parameters by their gradients."""
        ...

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on to the same bits."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Continue."""
        ...


def trainable(modules: Mapping[str, nn.Module]) -> list[nn.Parameter]:
    """The parameters that learn, in a fixed order."""
    return [p for module in modules.values() for p in module.parameters() if p.requires_grad]


def optimiser(modules: Mapping[str, nn.Module], config: OptimiserConfig) -> Optimiser:
    """Make the optimiser of a run for the parameters that learn."""
    parameters = trainable(modules)
    if config.algorithm == "adamw":
        return _adamw(parameters, config)
    matrices, kernels = _weights(modules, nn.Linear), []
    if config.algorithm == "muon-conv":
        # The first and the last convolution speak of a few channels each of which matters by itself.
        kernels = [weight for weight in _weights(modules, nn.Conv2d) if min(weight.shape[:2]) >= NARROW]
    if not matrices and not kernels:
        return _adamw(parameters, config)
    held = {id(p) for p in (*matrices, *kernels)}
    return _MuonAndAdamW(matrices, kernels, [p for p in parameters if id(p) not in held], config)


def _adamw(parameters: list[nn.Parameter], config: OptimiserConfig) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices and kernels only: norms, biases and gates would shrink what they scale."""
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    betas = (config.betas[0], config.betas[1])
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=True)


def _weights(modules: Mapping[str, nn.Module], kind: type[nn.Linear] | type[nn.Conv2d]) -> list[nn.Parameter]:
    """Weights of the layers of a kind that learn; embeddings are no matrices in this sense."""
    layers = [layer for module in modules.values() for layer in module.modules() if isinstance(layer, kind)]
    weights = [layer.weight for layer in layers if isinstance(layer.weight, nn.Parameter)]
    return list(dict.fromkeys(weight for weight in weights if weight.requires_grad))


class KernelMuon(torch.optim.Optimizer):
    """Muon on convolution kernels, each taken as the matrix (out, in k k) (Jordan et al. 2024).

    The step is the momentum made orthogonal by five Newton-Schulz iterations, scaled as in `_MuonAndAdamW`.

    Args:
        kernels: (out, in, k, k) each.
        lr: learning rate.
        weight_decay: decoupled.
        momentum: of Nesterov's kind.
    """

    def __init__(
        self, kernels: list[nn.Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(kernels, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Change the kernels by their gradients."""
        for group in self.param_groups:
            for kernel in group["params"]:
                if kernel.grad is None:
                    continue
                mean = self.state[kernel].setdefault("momentum_buffer", torch.zeros_like(kernel))
                mean.lerp_(kernel.grad, 1 - group["momentum"])
                ahead = kernel.grad.lerp(mean, group["momentum"]).flatten(1)
                size = 0.2 * max(ahead.shape) ** 0.5
                kernel.mul_(1 - group["lr"] * group["weight_decay"])
                kernel.add_(orthogonalised(ahead).view(kernel.shape), alpha=-group["lr"] * size)


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """Bring the singular values of (M, N) near 1, between about .7 and 1.2, in bfloat16.

    A polynomial of odd powers, iterated; its coefficients are those published with Muon, steep at zero.
    """
    x = matrix.bfloat16()
    x = x.T if x.shape[0] > x.shape[1] else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x.T if matrix.shape[0] > matrix.shape[1] else x).to(matrix.dtype)


class _MuonAndAdamW:
    """Muon (Jordan et al. 2024) on matrices and kernels, AdamW on everything else, as one optimiser.

    Muon's step is scaled to the size of AdamW's (Liu et al. 2025), so that one learning rate serves both.
    """

    def __init__(
        self,
        matrices: list[nn.Parameter],
        kernels: list[nn.Parameter],
        rest: list[nn.Parameter],
        config: OptimiserConfig,
    ) -> None:
        options = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
        self._parts: dict[str, torch.optim.Optimizer] = {"adamw": _adamw(rest, config)}
        if matrices:
            kind = getattr(torch.optim, "Muon", None)
            if kind is None:
                raise SettingsError("algorithm = 'muon': this torch has none; use torch 2.9 or newer, or 'adamw'")
            self._parts["muon"] = kind(matrices, adjust_lr_fn="match_rms_adamw", **options)
        if kernels:
            self._parts["kernels"] = KernelMuon(kernels, **options)
        self.param_groups: list[dict[str, Any]] = [g for part in self._parts.values() for g in part.param_groups]

    def step(self) -> None:
        for part in self._parts.values():
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self._parts.values():
            part.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        # Loading replaces the groups; the learning rate is set through these.
        self.param_groups = [g for part in self._parts.values() for g in part.param_groups]
