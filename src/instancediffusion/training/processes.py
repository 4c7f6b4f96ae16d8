"""The processes of a run: how they find one another, and how their gradients become one.

Every process draws the same batch from the step's seed, computes the loss of its own part, and the gradients are
averaged. All parts being equal, that is the gradient of the whole batch, and the losses are those of one process up
to rounding.

What Accelerate prepares is the whole loss of a step as the forward of one module, `LossOfStep`: an adapter acts from
inside a network that is no part of it, and is called separately for its keys and values, so that no module of a task
has a forward that everything it learns goes through. Accelerate's configuration then says what becomes of it: DDP, or
FSDP 2, which shards weights, EMA weights and the optimiser's state over the processes between the steps.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    InitProcessGroupKwargs,
    is_tensorboard_available,
)
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from instancediffusion.errors import SettingsError
from instancediffusion.training.optimisers import Optimiser
from instancediffusion.training.task import Task

# Others wait while the first process draws scenes or samples previews; the default of half an hour can be too short.
_PATIENCE = timedelta(days=1)
# Which parameters take part differs from step to step; buffers never change.
_DDP = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)


def open_accelerator(folder: Path | None = None) -> Accelerator:
    """Join the processes this one was started with, if any; a process may call this again and again.

    Precision is no business of the accelerator's here: it has one for the life of a process, while the stages of a
    recipe have one each (`Place.autocast`).

    Args:
        folder: where curves go, if TensorBoard is installed; None writes none.
    """
    return Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="no",
        log_with="tensorboard" if folder is not None and is_tensorboard_available() else None,
        project_dir=folder,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE), _DDP],
    )


def launched_alone() -> bool:
    """Whether `accelerate launch --cpu` asked for several processes and started one, which it does without MPI."""
    sizes = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
    launched = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true") and "MASTER_PORT" in os.environ
    return launched and not any(name in os.environ for name in sizes)


class LossOfStep(nn.Module):
    """A task's loss as the forward of a module that holds all that is trained.

    Args:
        task: the task; what it does not train is no part of the module.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.trained = nn.ModuleDict(task.modules)
        self.whole = True
        self._loss = task.loss

    def forward(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Return the loss, and numbers to log."""
        loss, numbers = self._loss(step)
        if not self.whole:  # FSDP would wait for ever for a gradient that a process has and another one has not
            loss = loss + sum(0 * p.flatten()[0] for p in self.parameters() if p.requires_grad)
        return loss, numbers


def prepare(accelerator: Accelerator, task: Task, optimiser: Optimiser) -> LossOfStep:
    """Prepare a task for the processes there are, as Accelerate's configuration says.

    Under FSDP the parameters of the task's modules, and with them those of the optimiser, are other tensors afterwards.

    Raises:
        SettingsError: the configuration asks for what cannot be done with this task.
    """
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise SettingsError("DeepSpeed: it is not supported; FSDP (fsdp_version: 2) shards weights and optimiser")
    loss = LossOfStep(task)
    if accelerator.distributed_type == DistributedType.FSDP:
        if not accelerator.is_fsdp2:
            raise SettingsError("FSDP: version 1 is not supported; set fsdp_version: 2")
        if not isinstance(optimiser, torch.optim.Optimizer):
            raise SettingsError("FSDP: Muon works on whole matrices; set algorithm = 'adamw'")
        loss.whole = False
        for parameter in loss.parameters():
            parameter.data = parameter.data.contiguous()  # FSDP takes no channels_last
        # FSDP does not shard single numbers: the gates. Their gradients are averaged by `average_small`.
        single = nn.ParameterList([p for p in loss.parameters() if not p.dim()])
        accelerator.state.fsdp_plugin.ignored_modules = [single]
        accelerator.prepare(loss, optimiser)
        for group in optimiser.param_groups:  # at once they are updated where all are sharded, or none
            group["fused"] = group["foreach"] = False
        return loss
    prepared: LossOfStep = accelerator.prepare_model(loss)
    return prepared


def average_small(accelerator: Accelerator, parameters: Sequence[nn.Parameter]) -> None:
    """Average the gradients of what FSDP leaves whole; everything else has been averaged."""
    if whole_here(parameters):
        return
    gradients = [p.grad for p in parameters if p.grad is not None and not isinstance(p, DTensor)]
    if gradients:
        mean = accelerator.reduce(torch.stack([g.reshape(()) for g in gradients]), "mean")
        for gradient, value in zip(gradients, mean.unbind(), strict=True):
            gradient.copy_(value)


def whole_here(parameters: Sequence[nn.Parameter]) -> bool:
    """Whether a process has all weights by itself, so that it can sample with them while others wait."""
    return not any(isinstance(p, DTensor) for p in parameters)


def gathered(value: Any) -> Any:
    """Return tensors, in dicts and lists of any depth, as wholes; every process has to ask alike."""
    if isinstance(value, Mapping):
        return {name: gathered(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [gathered(item) for item in value]
    return value.full_tensor() if isinstance(value, DTensor) else value


def shared_out(value: Tensor, like: Tensor) -> Tensor:
    """Return this process's shard of a whole tensor, if `like` is a shard of one."""
    if not isinstance(like, DTensor) or isinstance(value, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def load_module(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load whole tensors into a module whose own may be sharded."""
    own = module.state_dict()
    module.load_state_dict(
        {name: shared_out(value, own[name]) if name in own else value for name, value in state.items()}
    )


def load_optimiser(optimiser: Optimiser, state: dict[str, Any]) -> None:
    """Load a state of whole tensors into an optimiser whose parameters may be sharded."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    if isinstance(optimiser, torch.optim.Optimizer) and any(isinstance(p, DTensor) for p in parameters):
        kept = {
            number: {
                name: shared_out(value, parameters[number]) if value.shape == parameters[number].shape else value
                for name, value in values.items()
            }
            for number, values in state["state"].items()
        }
        state = {**state, "state": kept}
    optimiser.load_state_dict(state)


def mean_numbers(
    accelerator: Accelerator, loss: Tensor, numbers: Mapping[str, float]
) -> tuple[float, dict[str, float]]:
    """Return loss and numbers of a step, each as the mean over all processes."""
    value = float(loss.detach())
    if accelerator.num_processes == 1:
        return value, dict(numbers)
    mine = torch.tensor([value, *numbers.values()], dtype=torch.float64, device=loss.device)
    first, *rest = accelerator.reduce(mine, "mean").tolist()
    return first, dict(zip(numbers, rest, strict=True))
