"""AdamW, or Muon for the matrices and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import nn

from instancediffusion.errors import SettingsError
from instancediffusion.training.config import OptimiserConfig


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
    matrices = _matrices(modules)
    if not matrices:
        return _adamw(parameters, config)
    held = {id(p) for p in matrices}
    return _MuonAndAdamW(matrices, [p for p in parameters if id(p) not in held], config)


def _adamw(parameters: list[nn.Parameter], config: OptimiserConfig) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices and kernels only: norms, biases and gates would shrink what they scale."""
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    betas = (config.betas[0], config.betas[1])
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=True)


def _matrices(modules: Mapping[str, nn.Module]) -> list[nn.Parameter]:
    """Weights of linear layers, which mix features; embeddings and kernels are no matrices in this sense."""
    layers = [layer for module in modules.values() for layer in module.modules() if isinstance(layer, nn.Linear)]
    weights = [layer.weight for layer in layers if isinstance(layer.weight, nn.Parameter)]
    return list(dict.fromkeys(weight for weight in weights if weight.requires_grad))


class _MuonAndAdamW:
    """Muon (Jordan et al. 2024) on matrices, AdamW on everything else, as one optimiser.

    Muon's step is scaled to the size of AdamW's (Liu et al. 2025), so that one learning rate serves both.
    """

    def __init__(self, matrices: list[nn.Parameter], rest: list[nn.Parameter], config: OptimiserConfig) -> None:
        kind = getattr(torch.optim, "Muon", None)
        if kind is None:
            raise SettingsError("algorithm = 'muon': this torch has none; use torch 2.9 or newer, or 'adamw'")
        options = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
        self._parts: dict[str, torch.optim.Optimizer] = {
            "muon": kind(matrices, adjust_lr_fn="match_rms_adamw", **options),
            "adamw": _adamw(rest, config),
        }
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
