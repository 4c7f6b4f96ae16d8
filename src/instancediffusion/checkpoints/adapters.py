"""An adapter from whatever people have of it: a folder, a published checkpoint, the three spliced files, a hub id."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Union

import torch

from instancediffusion.adapter import InstanceAdapter
from instancediffusion.checkpoints.contents import open_weights
from instancediffusion.checkpoints.hub import CHECKPOINTS, HUB_OPTIONS, download_adapter, download_file
from instancediffusion.checkpoints.index import INDEX
from instancediffusion.checkpoints.published import load_official_adapter
from instancediffusion.checkpoints.spliced import load_spliced
from instancediffusion.checkpoints.variants import adapter_variant
from instancediffusion.errors import CheckpointError, ModelError

AdapterSource = Union[str, "os.PathLike[str]", "Sequence[str | os.PathLike[str]]"]
"""A folder, a file, several files that belong together, or a hub id."""


def read_adapter(source: AdapterSource, *, num_heads: int | None = None, **options: Any) -> InstanceAdapter:
    """Load an adapter.

    Args:
        source: a folder written by `save_pretrained`, `convert` or `train` (of a whole pipeline, too: its adapter is
            taken); a checkpoint in the published layout; a folder with the three spliced files, or the files; a hub id
            of an adapter or a pipeline, or `owner/name/file` on the hub.
        num_heads: attention heads, where files do not state them; see `load_official`.
        options: arguments of `InstanceAdapter.from_pretrained`, such as `torch_dtype`, `variant` or `revision`.

    Raises:
        ModelError: there is no such adapter.
        CheckpointError: a file is not what it should be.
    """
    if not isinstance(source, str | os.PathLike):
        return _cast(load_spliced([Path(path) for path in source], num_heads=num_heads), options)
    hub = {name: options[name] for name in HUB_OPTIONS if options.get(name) is not None}
    path = local_adapter(source, variant=options.get("variant"), **hub)
    if path.is_file():
        return _cast(_from_file(path, num_heads), options)
    return _from_folder(path, num_heads, {name: value for name, value in options.items() if name not in HUB_OPTIONS})


def local_adapter(source: str | os.PathLike[str], *, variant: str | None = None, **hub: Any) -> Path:
    """The local folder or file of an adapter; one on the hub is downloaded.

    Args:
        source: see `read_adapter`.
        variant: see `adapter_variant`.
        hub: where and how to download, see `HUB_OPTIONS`.

    Raises:
        ModelError: there is none, or it cannot be downloaded.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    text = os.fspath(source)
    if looks_like_path(text):
        raise ModelError(f"adapter: there is no folder or file {text!r}")
    owner, name, *inside = text.split("/", 2)
    if not inside:
        return download_adapter(text, variant=variant, **hub)
    if not inside[0].endswith(CHECKPOINTS):
        raise ModelError(f"adapter: {text!r} is neither a folder, a file nor a hub id (owner/name)")
    return download_file(f"{owner}/{name}", inside[0], **hub)


def looks_like_path(text: str) -> bool:
    """Whether a name that is no file or folder here was meant as one, rather than as `owner/name` of the hub."""
    parts = text.split("/")
    if "\\" in text or text.startswith((".", "/", "~")) or "" in parts or len(parts) < 2:
        return True
    return text.endswith(CHECKPOINTS) and len(parts) == 2


def _from_file(path: Path, num_heads: int | None) -> InstanceAdapter:
    file = open_weights(path)
    if file.kind == "spliced":
        return load_spliced([path], num_heads=num_heads)  # says which of the three are missing
    if file.kind == "adapter" and (path.parent / "config.json").is_file():
        return InstanceAdapter.from_pretrained(path.parent, use_safetensors=path.suffix == ".safetensors")
    file.expect("published")
    return load_official_adapter(path, num_heads=num_heads)


def _from_folder(folder: Path, num_heads: int | None, options: dict[str, Any]) -> InstanceAdapter:
    if (folder / INDEX).is_file() and (folder / "adapter" / "config.json").is_file():
        folder = folder / "adapter"
    names = sorted(entry.name for entry in folder.iterdir())
    if "config.json" in names:
        variant = adapter_variant(names, options.get("variant"), str(folder))
        loaded: InstanceAdapter = InstanceAdapter.from_pretrained(folder, **{**options, "variant": variant})
        return loaded
    if (folder / INDEX).is_file():
        raise ModelError(f"adapter: {folder} is a pipeline without one; give the folder or hub id of an adapter")
    files = [folder / name for name in names if name.endswith(CHECKPOINTS)]
    if not files:
        raise ModelError(f"adapter: {folder} holds no config.json and no weights; give the folder of an adapter")
    if len(files) == 1:
        return _cast(_from_file(files[0], num_heads), options)
    return _cast(load_spliced(files, num_heads=num_heads), options)


def _cast(adapter: InstanceAdapter, options: dict[str, Any]) -> InstanceAdapter:
    """What a loading call would have done about the type; quantisation needs a converted adapter."""
    if options.get("quantization_config") is not None:
        raise CheckpointError(
            "quantization_config: an adapter from a checkpoint is quantised after `instancediffusion convert` only"
        )
    dtype = options.get("torch_dtype", options.get("dtype"))
    return adapter.to(dtype) if isinstance(dtype, torch.dtype) else adapter
