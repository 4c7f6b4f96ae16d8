"""The processes of a run: how they find one another, and how their gradients become one.

Every process draws the same batch from the step's seed, computes the loss of its own share, and the gradients are
averaged. All shares being equal, that is the gradient of the whole batch, and the losses are those of one process up
to rounding.

`DistributedDataParallel` is not used. It averages the gradients of one wrapped module whose `forward` it is called
through; here several modules learn together, the adapter acts from inside the UNet by its graft and is called for its
keys and values apart, and which parameters take part differs from step to step. Averaging after the backward pass, in
a few flat buckets, needs none of its bookkeeping and leaves the modules, their names and their checkpoints as they
are. What it gives up is sending gradients while others are still being computed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, is_tensorboard_available
from torch import Tensor, nn

BUCKET = 8_000_000
"""Numbers that are sent together."""

# Others wait while the first process draws scenes or looks at pictures; the default of half an hour can be too short.
_PATIENCE = timedelta(days=1)


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
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
    )


def launched_alone() -> bool:
    """Whether `accelerate launch --cpu` asked for several processes and started one, which it does without MPI."""
    sizes = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
    launched = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true") and "MASTER_PORT" in os.environ
    return launched and not any(name in os.environ for name in sizes)


def average_gradients(accelerator: Accelerator, parameters: Sequence[nn.Parameter], bucket: int = BUCKET) -> None:
    """Replace the gradients of every process by their mean over all processes.

    A parameter without a gradient counts as zero where another process has one, and keeps none where nobody has.
    """
    if accelerator.num_processes == 1 or not parameters:
        return
    device = parameters[0].device
    found = torch.tensor([float(p.grad is not None) for p in parameters], device=device)
    anywhere = accelerator.reduce(found, "sum").tolist()
    for group in _buckets([p for p, count in zip(parameters, anywhere, strict=True) if count], bucket):
        for parameter in group:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in group if p.grad is not None]
        mean = accelerator.reduce(torch.cat([g.reshape(-1) for g in gradients]), "mean")
        for gradient, part in zip(gradients, mean.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view(gradient.shape))  # into its own memory layout, which fused optimisers rely on


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


def _buckets(parameters: Sequence[nn.Parameter], size: int) -> Iterator[list[nn.Parameter]]:
    group: list[nn.Parameter] = []
    held = 0
    for parameter in parameters:
        if group and held + parameter.numel() > size:
            yield group
            group, held = [], 0
        group.append(parameter)
        held += parameter.numel()
    if group:
        yield group
