"""Writing a published checkpoint as a folder of safetensors, and fetching named models into one."""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers
import torch

from instancediffusion.adapter import InstanceAdapter
from instancediffusion.checkpoints.cards import CARDS, ModelCard, mini_folder
from instancediffusion.checkpoints.hub import download_file, download_parts
from instancediffusion.checkpoints.index import INDEX
from instancediffusion.checkpoints.published import OfficialComponents, load_official
from instancediffusion.checkpoints.single_file import SingleFileComponents
from instancediffusion.errors import CheckpointError, ModelError
from instancediffusion.runs import cache_folder, file_sha256

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

COMPONENTS = {
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "adapter": ["instancediffusion.adapter.adapter", "InstanceAdapter"],
}
"""What a model folder's index says of every component but the scheduler: library and class."""

PIPELINE_CLASS = ["instancediffusion.pipeline", "InstanceDiffusionPipeline"]
_STOCK = {False: "StableDiffusionPipeline", True: "StableDiffusionXLPipeline"}


def check_new_folder(out: Path) -> None:
    """Raise `CheckpointError` unless `out` is absent or an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out}: it exists and is not empty; give a new folder, nothing is overwritten")


def write_folder(
    components: OfficialComponents | SingleFileComponents,
    out: Path,
    *,
    adapter: InstanceAdapter | None = None,
    tokenizer: CLIPTokenizer | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write components as a diffusers-style folder of safetensors; all of it appears at once or not at all.

    Args:
        components: what `load_official` or `load_single_file` returned; cast in place where `dtype` is given.
        out: the folder; must not exist yet, or be empty.
        adapter: written in place of the one that the model brings, or along with one that brings none; without any, the
            folder is that of a stock model.
        tokenizer: written along; without it the folder asks for one when it is loaded. The second tokenizer of XL is
            made of it.
        dtype: type of the written weights; None keeps theirs.

    Raises:
        CheckpointError: `out` holds something, or the tokenizer is not that of the text encoder.
        ModelError: the adapter does not fit the UNet.
    """
    check_new_folder(out)
    modules: dict[str, Any] = components.modules()
    if adapter is not None:
        if (brought := modules.get("adapter")) is not None:
            brought.remove()
        adapter.graft(components.unet)  # refuses one of another shape
        modules["adapter"] = adapter
    for module in modules.values() if dtype is not None else ():
        module.to(dtype)
    with new_folder(out) as work:
        parts = {**modules, "scheduler": components.scheduler, **tokenizers_for(modules, tokenizer)}
        for name, part in parts.items():
            save_part(part, work / name)
        named: dict[str, list[str | None]] = {name: _library_and_class(part) for name, part in parts.items()}
        for name in ["tokenizer"] + (["tokenizer_2"] if "text_encoder_2" in modules else []):
            named.setdefault(name, [None, None])
        stock = _STOCK["text_encoder_2" in modules] if "adapter" not in modules else PIPELINE_CLASS
        index = {"_class_name": stock, "_diffusers_version": diffusers.__version__, **named}
        (work / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def write_adapter(adapter: InstanceAdapter, out: Path, *, dtype: torch.dtype | None = None) -> None:
    """Write an adapter alone; see `write_folder`."""
    check_new_folder(out)
    if dtype is not None:
        adapter.to(dtype)
    with new_folder(out) as work:
        save_part(adapter, work)


def save_part(part: Any, folder: Path) -> None:
    """Save a network, tokenizer or scheduler; its configuration forgets where on this machine it was loaded from."""
    part.save_pretrained(folder)
    path = folder / "config.json"
    if path.is_file():
        config = json.loads(path.read_text(encoding="utf-8"))
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def new_folder(out: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to fill; it takes the place of `out` when all is well, and else vanishes.

    Args:
        out: absent, or empty.
        replace: whatever is there goes.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield work
        work.chmod(0o755)
        for path in work.rglob("*"):  # newer versions of safetensors write files that no one else may read
            path.chmod(0o755 if path.is_dir() else 0o644)
        if out.exists() and replace:
            shutil.rmtree(out)
        elif out.exists():
            out.rmdir()
        os.replace(work, out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def tokenizers_for(modules: Mapping[str, Any], tokenizer: CLIPTokenizer | None) -> dict[str, CLIPTokenizer]:
    """The tokenizers of a model's text encoders, made of the one that all CLIP models share.

    They differ in what they pad with: the second of XL, and that of 2.x, with `!`. The text encoders get the token
    that ends a text, since that is where their pooled features are read.

    Raises:
        CheckpointError: it knows more tokens than a text encoder.
    """
    if tokenizer is None:
        return {}
    made = {}
    for name, of in (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")):
        if (encoder := modules.get(of)) is None:
            continue
        if len(tokenizer) > encoder.config.vocab_size:
            raise CheckpointError(
                f"tokenizer: it has {len(tokenizer)} tokens and the {of} {encoder.config.vocab_size}; take that of the "
                "model this file was made from"
            )
        set_end_of_text(encoder, tokenizer)
        made[name] = copy.deepcopy(tokenizer)
        if encoder.config.hidden_act == "gelu" and "!" in tokenizer.get_vocab():  # OpenCLIP
            made[name].pad_token = "!"
    return made


def set_end_of_text(encoder: Any, tokenizer: CLIPTokenizer) -> None:
    """Set the token that ends a text in a text encoder: the state of the first one is its pooled feature."""
    encoder.config.eos_token_id = tokenizer.eos_token_id
    inner = getattr(encoder, "text_model", encoder)
    if hasattr(inner, "eos_token_id"):  # what its configuration said when it was built
        inner.eos_token_id = tokenizer.eos_token_id


def _library_and_class(part: Any) -> list[str | None]:
    if isinstance(part, InstanceAdapter):
        return [*COMPONENTS["adapter"]]
    return [type(part).__module__.split(".")[0], type(part).__name__]


def model_folder(name: str) -> Path:
    """The local folder of a named model; the published one is downloaded and converted on first use.

    Args:
        name: a key of `CARDS`.

    Raises:
        ModelError: unknown name, no network, or a download that does not match the card's hash.
    """
    if name not in CARDS:
        raise ModelError(f"model: no card is named {name!r}; named models are {', '.join(CARDS)}")
    card = CARDS[name]
    if card.adapter is None or card.adapter.file is None or card.base is None:
        return mini_folder()
    folder = cache_folder() / name
    if (folder / INDEX).is_file():
        return folder
    try:
        source = download_file(card.adapter.repository, card.adapter.file, revision=card.adapter.revision)
        base = base_files(card)
    except ModelError as error:
        raise ModelError(
            f"{str(error).replace('model:', f'model {name}:', 1)}; or convert a downloaded file with "
            "`instancediffusion convert` and pass the folder"
        ) from error
    if card.adapter.sha256 is not None and file_sha256(source) != card.adapter.sha256:
        raise ModelError(f"model {name}: {source} does not match the card's hash; delete it and try again")
    from transformers import CLIPTokenizer

    components = load_official(source, base=base)
    write_folder(components, folder, tokenizer=CLIPTokenizer.from_pretrained(base / "tokenizer"))
    return folder


def base_files(card: ModelCard) -> Path:
    """The local folder of a card's base model with its tokenizer and configurations, not its weights.

    Raises:
        ModelError: they cannot be downloaded.
    """
    if card.base is None:
        raise ModelError(f"model: {card.name} has no base model")
    parts = ["tokenizer/*", "unet/config.json", "text_encoder/config.json"]
    anchor = "tokenizer/tokenizer_config.json"
    return download_parts(card.base.repository, anchor, parts, revision=card.base.revision)


def shared_tokenizer() -> CLIPTokenizer:
    """The tokenizer of all Stable Diffusion models, from the converted `sd15`, the hub or its cache.

    Raises:
        ModelError: it is in none of them.
    """
    from transformers import CLIPTokenizer

    converted = cache_folder() / "sd15" / "tokenizer"
    try:
        folder = converted if converted.is_dir() else base_files(CARDS["sd15"]) / "tokenizer"
    except ModelError as error:
        raise ModelError(f"tokenizer: files of weights hold none; pass tokenizer= (--tokenizer). {error}") from error
    return CLIPTokenizer.from_pretrained(folder)
