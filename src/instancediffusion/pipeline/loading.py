"""Finding a model by name, folder or hub id."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from instancediffusion.adapter import InstanceAdapter
from instancediffusion.checkpoints import CARDS, model_folder
from instancediffusion.errors import ModelError
from instancediffusion.pipeline.settings import GenerationSettings
from instancediffusion.scene import Noun

DEFAULT_MODEL = "mini"


def find_model(name: str | os.PathLike[str]) -> str:
    """A local folder, or a hub id as it is.

    Args:
        name: a card's name (a folder of that name has to be written `./name`), a folder, or a hub id `owner/name`.

    Raises:
        ModelError: it looks like a folder and there is none, or is neither a card nor a hub id.
    """
    text = os.fspath(name)
    if text in CARDS:
        return str(model_folder(text))
    folder = Path(text).expanduser()
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise ModelError(f"model: {text} holds no model_index.json; give the folder of a whole pipeline")
        return str(folder)
    if text.count("/") != 1 or text.startswith((".", "/", "~")):
        raise ModelError(f"model: there is no folder {text!r}, and models known by name are {', '.join(CARDS)}")
    return text


def local_model(name: str | os.PathLike[str], **hub: Any) -> Path:
    """The local folder of a model; one on the hub is downloaded.

    Args:
        name: see `find_model`.
        hub: arguments of `DiffusionPipeline.download`, such as `revision`.

    Raises:
        ModelError: it does not exist, or cannot be downloaded.
    """
    found = find_model(name)
    if Path(found).is_dir():
        return Path(found)
    from diffusers import DiffusionPipeline

    try:
        return Path(DiffusionPipeline.download(found, **hub))
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"model: {found} cannot be downloaded ({reason}); give a folder, or check the name") from error


def model_defaults(folder: str | os.PathLike[str]) -> GenerationSettings:
    """The settings a model folder states as best for it, without loading it.

    Raises:
        SettingsError: the folder states settings that do not exist.
    """
    return GenerationSettings.from_dict(_index(folder).get("default_settings") or {})


def known_objects(folder: str | os.PathLike[str]) -> tuple[dict[str, Noun], tuple[str, ...]]:
    """The words for objects that a model folder states, and the phrases for what is behind them; see `Arrangement`."""
    return arrangement_words(_index(folder).get("known_objects") or {})


def _index(folder: str | os.PathLike[str]) -> dict[str, Any]:
    index: dict[str, Any] = json.loads((Path(folder) / "model_index.json").read_text(encoding="utf-8"))
    return index


def arrangement_words(stated: Mapping[str, Any]) -> tuple[dict[str, Noun], tuple[str, ...]]:
    """Read `{"nouns": {word: fields of Noun}, "grounds": [phrase, ...]}`, as a model's index states it."""
    nouns = {word: Noun(**fields) for word, fields in stated.get("nouns", {}).items()}
    return nouns, tuple(stated.get("grounds", ()))


def load_adapter(
    source: InstanceAdapter | str | os.PathLike[str] | None, folder: str, **options: Any
) -> InstanceAdapter:
    """The adapter to go with the model in `folder`.

    Args:
        source: an adapter, a folder or hub id of one, or None for the one in the model's folder.
        folder: local folder of the model.
        options: arguments of `InstanceAdapter.from_pretrained`.

    Raises:
        ModelError: the folder has none and none is given.
    """
    if isinstance(source, InstanceAdapter):
        dtype = options.get("torch_dtype", options.get("dtype"))
        if isinstance(dtype, torch.dtype):
            source.to(dtype)
        return source
    if source is None:
        if not (Path(folder) / "adapter").is_dir():
            raise ModelError(f"adapter: {folder} has none; pass adapter= (an InstanceAdapter, or a folder of one)")
        source = Path(folder) / "adapter"
    adapter: InstanceAdapter = InstanceAdapter.from_pretrained(source, **options)
    return adapter


def check_complete(folder: str, options: Mapping[str, Any]) -> None:
    """Raise `ModelError` if a model folder was written without a tokenizer and `options` hold none."""
    index = json.loads((Path(folder) / "model_index.json").read_text(encoding="utf-8"))
    if index.get("tokenizer", [None])[0] is None and options.get("tokenizer") is None:
        raise ModelError(f"tokenizer: {folder} has none; pass tokenizer= (that of the base model)")


def graft_once(adapter: InstanceAdapter, unet: Any) -> None:
    """Graft an adapter on a UNet, unless it is on this very one.

    Raises:
        ModelError: it is grafted on another UNet, or does not fit this one.
    """
    if not adapter.grafted_on(unet):
        adapter.graft(unet)
