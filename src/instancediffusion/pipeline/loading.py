"""Finding a model by name, folder or hub id."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from packaging.version import Version

from instancediffusion.adapter import InstanceAdapter
from instancediffusion.adapter.graft import graft_on
from instancediffusion.checkpoints import CARDS, AdapterSource, model_folder, read_adapter
from instancediffusion.checkpoints.adapters import looks_like_path
from instancediffusion.checkpoints.contents import SafeTensors
from instancediffusion.checkpoints.families import check_family
from instancediffusion.checkpoints.hub import (
    CHECKPOINTS,
    HUB_OPTIONS,
    download_file,
    download_pipeline,
)
from instancediffusion.checkpoints.index import INDEX, components_of, read_index
from instancediffusion.checkpoints.variants import choose_variant
from instancediffusion.errors import ModelError

DEFAULT_MODEL = "mini"
DTYPE = "dtype" if Version(diffusers.__version__) >= Version("0.42") else "torch_dtype"
"""The name of the argument that diffusers takes types by; newer versions warn of the older one."""
_HUB_URL = re.compile(r"https://[^/]+/(?P<repository>[^/]+/[^/]+)/(?:blob|resolve)/[^/]+/(?P<file>[^?]+)(?:\?.*)?")
_TEXT = "text_model."
_POSITIONS = "embeddings.position_embedding.weight"
# Arguments of a loading call, beside the hub's and the type, that the adapter's own takes, too.
_MODEL_OPTIONS = ("variant", "use_safetensors", "low_cpu_mem_usage", "disable_mmap")


def find_model(name: str | os.PathLike[str]) -> str:
    """A local folder or file, or what is to be looked up on the hub.

    Args:
        name: a card's name (a folder or file of that name has to be written `./name`); a folder; a model in one file; a
            hub id `owner/name`; or `owner/name/file` for one file of a repository. The disk is asked first.

    Raises:
        ModelError: it looks like a folder or file and there is none, it is no model, or neither a card nor a hub id.
    """
    text = os.fspath(name)
    if text in CARDS:
        return str(model_folder(text))
    path = Path(text).expanduser()
    if path.is_file():
        return str(path)
    if path.is_dir():
        if not (path / INDEX).is_file():
            raise ModelError(f"model: {text} holds no {INDEX}{_what_folder(path)}")
        return str(path)
    if text.startswith("https://") and (file := _HUB_URL.fullmatch(text)):
        return f"{file['repository']}/{file['file']}"
    if looks_like_path(text):
        raise ModelError(f"model: there is no folder or file {text!r}, and models known by name are {', '.join(CARDS)}")
    if text.count("/") > 1 and not text.endswith(CHECKPOINTS):
        raise ModelError(f"model: {text!r} is neither a folder, a file nor a hub id (owner/name)")
    return text


def _what_folder(folder: Path) -> str:
    """What a folder without an index is instead, and how to use it."""
    if (folder / "config.json").is_file():
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("_class_name", "one component")
        return f" but an {kind}; pass it as adapter= (--adapter)" if kind == "InstanceAdapter" else f" but {kind}"
    weights = sorted(path.name for path in folder.iterdir() if path.name.endswith(CHECKPOINTS))
    return (
        f"; to load a file of it, name the file: {folder / weights[0]}"
        if weights
        else ("; give the folder of a whole pipeline")
    )


def local_model(
    name: str | os.PathLike[str], *, variant: str | None = None, given: Collection[str] = (), **hub: Any
) -> Path:
    """The local folder or file of a model; one on the hub is downloaded.

    Args:
        name: see `find_model`.
        variant: such as `fp16`; see `choose_variant`.
        given: components the caller has, which are not downloaded.
        hub: where and how to download: `revision`, `cache_dir`, `token`, `local_files_only`, `force_download`.

    Raises:
        ModelError: it does not exist, or cannot be downloaded.
    """
    found = find_model(name)
    if Path(found).exists():
        return Path(found)
    owner, repository, *inside = found.split("/", 2)
    if inside:
        return download_file(f"{owner}/{repository}", inside[0], **hub)
    return download_pipeline(found, variant=variant, given=given, **hub)


def folder_variant(folder: Path, asked: str | None, given: Collection[str], where: str) -> str | None:
    """The variant to load a model's folder in; see `choose_variant`."""
    components = [name for name in components_of(read_index(folder)) if name not in given and (folder / name).is_dir()]
    return choose_variant({name: os.listdir(folder / name) for name in components}, asked, where)


def load_adapter(source: InstanceAdapter | AdapterSource, **options: Any) -> InstanceAdapter:
    """The adapter that a loading call names.

    Args:
        source: an adapter, or what `read_adapter` reads.
        options: arguments of the pipeline's loading call; those that concern the adapter are handed on.

    Raises:
        ModelError: there is no such adapter.
    """
    dtype = options.get("torch_dtype", options.get("dtype"))
    if isinstance(dtype, Mapping):
        dtype = dtype.get("adapter", dtype.get("default", torch.float32))
    if isinstance(source, InstanceAdapter):
        return source.to(dtype) if isinstance(dtype, torch.dtype) else source
    own = {name: options[name] for name in (*HUB_OPTIONS, *_MODEL_OPTIONS) if options.get(name) is not None}
    # A repository of its own: `revision` is that of the model.
    own.pop("revision", None)
    if (revision := options.get("adapter_revision")) is not None:
        own["revision"] = revision
    quantisation = options.get("quantization_config")
    if quantisation is not None and (chosen := quantisation._resolve_quant_config(True, "adapter")) is not None:
        own["quantization_config"] = chosen
    return read_adapter(source, **{DTYPE: dtype}, **own)


def check_complete(folder: str | os.PathLike[str], options: Mapping[str, Any], where: str) -> None:
    """Raise `ModelError` if a model folder is of another architecture, or lacks an adapter or tokenizer.

    Args:
        folder: the folder.
        options: components by name, which take the place of the folder's.
        where: the model's name, for messages.
    """
    index = read_index(folder)
    check_family(index, where)
    if options.get("adapter") is None and not (Path(folder) / "adapter").is_dir():
        raise ModelError(
            f"adapter: {where} has none; pass adapter= (--adapter): an InstanceAdapter, or a folder, file or hub id "
            "of one"
        )
    if index.get("tokenizer", [None])[0] is None and options.get("tokenizer") is None:
        raise ModelError(f"tokenizer: {where} has none; pass tokenizer= (that of the base model)")


def check_text_encoders(folder: Path, components: Mapping[str, Any], given: Collection[str], where: str) -> None:
    """Raise `ModelError` if a CLIP text encoder has not got the weights of its folder.

    transformers fills tensors that it does not find with random numbers and prints a table of them, no more. Which
    names it finds differs by version: with or without the prefix `text_model.`.

    Args:
        folder: the model's.
        components: of the pipeline that was opened from it, by name.
        given: names of those that are not from the folder.
        where: the model's name, for messages.
    """
    import transformers
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    for name, module in components.items():
        files = sorted((folder / name).glob("*.safetensors"))
        if name in given or not isinstance(module, CLIPTextModel | CLIPTextModelWithProjection) or not files:
            continue
        tensors = {key.removeprefix(_TEXT): (file, key) for file in map(SafeTensors, files) for key in file}
        own = {key.removeprefix(_TEXT): value for key, value in module.state_dict().items()}
        if missing := [key for key in own if key.endswith((".weight", ".bias")) and key not in tensors]:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise ModelError(f"{name}: {where} lacks {missing[0]}{more}; pass {name}=, or download the model again")
        # One tensor tells: these embeddings are small, no two models have the same, and nothing quantises them.
        file, key = tensors[_POSITIONS]
        read = own[_POSITIONS]
        if not read.is_meta and not torch.equal(read.cpu(), file[key].to(read.dtype)):
            raise ModelError(
                f"{name}: this version of transformers ({transformers.__version__}) does not find the tensors of "
                f"{where} under their names ({key}); install transformers 5.6 or newer"
            )


def graft_once(adapter: InstanceAdapter, unet: Any) -> None:
    """Graft an adapter on a UNet, unless it is on this very one.

    Raises:
        ModelError: it is grafted on another UNet, or does not fit this one.
    """
    if not adapter.grafted_on(unet):
        discard_forsaken_graft(unet)
        adapter.graft(unet)


def discard_forsaken_graft(unet: Any) -> None:
    """Take off a graft whose adapter is gone, as of a pipeline that was deleted; nothing else can."""
    carried = graft_on(unet)
    if carried is not None and carried.owner.adapter is not None and carried.owner.adapter() is None:
        carried.remove()
