"""Reading checkpoints of PyTorch (`.pth`, `.ckpt`) without running anything in them.

They are pickles that hold, beside tensors, what their training code left: configuration objects of OmegaConf in the
published file, counters of numpy and names of PyTorch Lightning in those of Stable Diffusion. PyTorch's own restricted
unpickler reads them: it calls nothing but tensor rebuilding and what is listed here, and the listed names are inert
stand-ins. Any other global is refused by name.
"""

from __future__ import annotations

import re
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from instancediffusion.errors import CheckpointError

_INERT = (
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.nodes.AnyNode",
    "omegaconf.nodes.StringNode",
    "omegaconf.nodes.IntegerNode",
    "omegaconf.nodes.FloatNode",
    "omegaconf.nodes.BooleanNode",
    "typing.Any",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
    "_codecs.encode",
)


def _inert_class(qualified: str) -> type:
    """A class of the given name that keeps its state as plain attributes and does nothing else."""
    module, _, name = qualified.rpartition(".")

    def __init__(self: Any, *_: Any) -> None:  # noqa: N807 - what it would be made of is of no use here
        del self

    def __setstate__(self: Any, state: Any) -> None:  # noqa: N807 - the name pickle calls
        self.__dict__["state"] = state

    return type(
        name, (), {"__module__": module, "__qualname__": name, "__init__": __init__, "__setstate__": __setstate__}
    )


_STAND_INS = [_inert_class(name) for name in _INERT]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The top-level dictionary of a file of `torch.save`, tensors on the CPU and (but for old files) mapped from disk.

    Raises:
        CheckpointError: it asks for a global beyond tensors and plain containers; it is named, and nothing of the file
            has been executed. Or it is no checkpoint at all; see `contents.container`.
    """
    path = Path(path)
    zipped = zipfile.is_zipfile(path)
    try:
        with torch.serialization.safe_globals([*_STAND_INS, defaultdict, dict, list, int]):
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # noqa: BLE001 - the unpickler raises many types on hostile files
        raise CheckpointError(f"{path}: refused: {_reason(error)}") from None
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path}: expected a dictionary of components, found {type(loaded).__name__}")
    return loaded


def _reason(error: Exception) -> str:
    named = re.search(r"GLOBAL (\S+)|(?:[Cc]lass|[Ff]unction|module) `?([\w.]+\.\w+)", str(error))
    if named:
        return (
            f"it asks for {named[1] or named[2]}, which is neither a tensor nor a plain container; nothing was executed"
        )
    return f"it cannot be read as tensors and plain containers ({str(error).splitlines()[0][:120]})"
