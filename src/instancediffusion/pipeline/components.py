"""The components of a pipeline from one file of weights."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from instancediffusion.checkpoints import (
    load_official,
    load_single_file,
    official_scheduler,
    open_weights,
    shared_tokenizer,
    tokenizers_for,
)
from instancediffusion.checkpoints.hub import HUB_OPTIONS, download_parts
from instancediffusion.checkpoints.index import INDEX
from instancediffusion.errors import ModelError
from instancediffusion.pipeline.loading import load_adapter

_SHAPE_OPTIONS = ("num_heads", "text_heads")
_CONFIGS = ("*/config.json", "*.json", "scheduler/*", "tokenizer/*", "tokenizer_2/*")


def components_from_file(
    path: Path, given: Mapping[str, Any], options: Mapping[str, Any], plain: Collection[str]
) -> dict[str, Any]:
    """The arguments of a pipeline, from a file and from what the caller gives in place of parts of it.

    Args:
        path: the published checkpoint, or a Stable Diffusion model in one file.
        given: components by name; `adapter` may be anything `load_adapter` takes.
        options: the other options of `from_single_file`.
        plain: names among `given` that are no components.

    Raises:
        ModelError: it brings no adapter and none is given, or an option is unknown.
        CheckpointError: it is another kind of file, or not a whole one.
    """
    allowed = (*HUB_OPTIONS, *_SHAPE_OPTIONS, "config", "prediction_type", "torch_dtype", "dtype", "adapter_revision")
    ignored = ("use_safetensors", "low_cpu_mem_usage", "disable_mmap", "device_map", "max_memory")
    for name in options:
        if name not in allowed and name not in ignored:
            raise ModelError(f"{name}: unknown option for a model in one file; convert it to a folder to use it")
    shapes = {name: options[name] for name in _SHAPE_OPTIONS if options.get(name) is not None}
    file = open_weights(path).expect("published", "single_file")
    adapter = given.get("adapter")
    if file.kind == "single_file" and adapter is None:
        raise ModelError(
            f"adapter: {path} is {file.what} and brings none; pass adapter= (--adapter): an InstanceAdapter, or a "
            "folder, file or hub id of one"
        )
    configs = _configs(options)
    if file.kind == "published":
        parts: dict[str, Any] = load_official(path, base=configs, **shapes).modules()
        scheduler = None
        if adapter is not None:
            parts["adapter"].remove()
    else:
        loaded = load_single_file(path, config=configs, prediction_type=options.get("prediction_type"), **shapes)
        parts, scheduler = loaded.modules(), loaded.scheduler
    if adapter is not None:
        parts["adapter"] = load_adapter(adapter, **options)
    parts |= {name: value for name, value in given.items() if name != "adapter"}
    if parts.get("tokenizer") is None:
        from transformers import CLIPTokenizer

        folder = None if configs is None else configs / "tokenizer"
        tokenizer = CLIPTokenizer.from_pretrained(folder) if folder and folder.is_dir() else shared_tokenizer()
        parts |= tokenizers_for(parts, tokenizer)
    else:
        # A tokenizer that was given is kept as it is; the encoders of the file get its end-of-text token.
        own = {name: part for name, part in parts.items() if name not in given}
        made = tokenizers_for(own, parts["tokenizer"])
        parts = {**made, **parts}
    if parts.get("scheduler") is None:
        parts["scheduler"] = official_scheduler() if scheduler is None else scheduler
    _cast(parts, options.get("torch_dtype", options.get("dtype")), [*given, *plain])
    return parts


def _configs(options: Mapping[str, Any]) -> Path | None:
    """The local folder of `config`, which may be a hub id."""
    config = options.get("config")
    if config is None:
        return None
    folder = Path(config).expanduser()
    if folder.is_dir():
        return folder
    text = os.fspath(config)
    if text.count("/") != 1 or text.startswith((".", "/", "~")):
        raise ModelError(f"config: there is no folder {text!r}")
    hub = {name: options[name] for name in HUB_OPTIONS if options.get(name) is not None and name != "revision"}
    return download_parts(text, INDEX, _CONFIGS, **hub)


def _cast(parts: Mapping[str, Any], dtype: Any, given: Collection[str]) -> None:
    """Bring the networks that were loaded here to the type asked for, one for all or by component."""
    for name, part in parts.items():
        if not isinstance(part, torch.nn.Module) or name in given:
            continue
        chosen = dtype.get(name, dtype.get("default", torch.float32)) if isinstance(dtype, Mapping) else dtype
        if isinstance(chosen, torch.dtype):
            torch.nn.Module.to(part, chosen)  # diffusers' own warns of what does not concern these networks
