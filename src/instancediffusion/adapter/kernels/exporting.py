"""Whether a graph is being made that has to hold on other devices and in other libraries than torch."""

from __future__ import annotations

import torch


def is_exporting() -> bool:
    """Whether `torch.export` follows what is computed; in torch before 2.7, also whether `torch.compile` does."""
    asked = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    return bool(asked())
