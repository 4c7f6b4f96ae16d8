"""Writing a published checkpoint as a folder of safetensors, and fetching named models into one."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import CLIPTokenizer

from instancediffusion.checkpoints.cards import CARDS, mini_folder
from instancediffusion.checkpoints.official import OfficialComponents, load_official, official_scheduler
from instancediffusion.errors import CheckpointError, ModelError
from instancediffusion.runs import cache_folder, file_sha256

COMPONENTS = {
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "adapter": ["instancediffusion.adapter.adapter", "InstanceAdapter"],
}
"""What a model folder's index says of every component but the scheduler: library and class."""

PIPELINE_CLASS = ["instancediffusion.pipeline", "InstanceDiffusionPipeline"]


def check_new_folder(out: Path) -> None:
    """Raise `CheckpointError` unless `out` is absent or an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out}: it exists and is not empty; give a new folder, nothing is overwritten")


def write_folder(
    components: OfficialComponents,
    out: Path,
    *,
    adapter_only: bool = False,
    tokenizer: CLIPTokenizer | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write components as a diffusers-style folder of safetensors; all of it appears at once or not at all.

    Args:
        components: what `load_official` returned; cast in place where `dtype` is given.
        out: the folder; must not exist yet, or be empty.
        adapter_only: write the adapter's `config.json` and weights alone.
        tokenizer: written along; without it the folder asks for one when it is loaded.
        dtype: type of the written weights; None keeps theirs.

    Raises:
        CheckpointError: `out` holds something.
    """
    check_new_folder(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        modules = {name: getattr(components, name) for name in ("unet", "adapter", "vae", "text_encoder")}
        if dtype is not None:
            for module in modules.values():
                module.to(dtype)
        if adapter_only:
            components.adapter.save_pretrained(work)
        else:
            for name, module in modules.items():
                module.save_pretrained(work / name)
            official_scheduler().save_pretrained(work / "scheduler")
            if tokenizer is not None:
                tokenizer.save_pretrained(work / "tokenizer")
            index: dict[str, Sequence[str | None]] = {
                "_class_name": PIPELINE_CLASS,
                **COMPONENTS,
                "scheduler": ["diffusers", "PNDMScheduler"],
            }
            if tokenizer is None:
                index["tokenizer"] = [None, None]
            (work / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
        work.chmod(0o755)
        if out.exists():
            out.rmdir()
        os.replace(work, out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


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
    if (folder / "model_index.json").is_file():
        return folder
    from huggingface_hub import hf_hub_download  # not needed by models in the package
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        source = hf_hub_download(card.adapter.repository, card.adapter.file, revision=card.adapter.revision)
        tokenizer = CLIPTokenizer.from_pretrained(
            card.base.repository, subfolder="tokenizer", revision=card.base.revision
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"model {name}: {card.adapter.repository} could not be downloaded ({type(error).__name__}); check the "
            "network, or convert a downloaded file with `instancediffusion convert` and pass the folder"
        ) from None
    if card.adapter.sha256 is not None and file_sha256(Path(source)) != card.adapter.sha256:
        raise ModelError(f"model {name}: {source} does not match the card's hash; delete it and try again")
    write_folder(load_official(source), folder, tokenizer=tokenizer)
    return folder
