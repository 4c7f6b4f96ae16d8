"""Cards: the models that have a name, with where they are, their hash and their licence."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from huggingface_hub import ModelCard as HubCard
from yaml import YAMLError  # type: ignore[import-untyped]

from instancediffusion.additions import LORA_FOLDER
from instancediffusion.checkpoints.index import INDEX
from instancediffusion.errors import ModelError
from instancediffusion.runs import file_sha256


@dataclass(frozen=True)
class RemoteFile:
    """One file or folder on the model hub.

    Attributes:
        repository: owner/name.
        revision: commit or branch.
        file: path inside the repository; None means the whole repository.
        sha256: hash of the file; None where we have not been able to see the file ourselves, and then the
            hash that was found is reported instead of checked.
        licence: licence identifier the repository states.
    """

    repository: str
    revision: str
    licence: str
    file: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class ModelCard:
    """A model that can be asked for by name.

    Attributes:
        name: the name.
        summary: one line for people.
        licence: licence of the weights.
        adapter: where the published adapter weights are; None for a model in the package.
        base: the text-to-image model they belong to; None for a model in the package.
        side_px: picture side it was trained at.
    """

    name: str
    summary: str
    licence: str
    side_px: int
    adapter: RemoteFile | None = None
    base: RemoteFile | None = None


CARDS: dict[str, ModelCard] = {
    "mini": ModelCard(
        name="mini",
        summary="small model of a synthetic world, ships in the package, 128 pixels, runs on a laptop CPU",
        licence="Apache-2.0",
        side_px=128,
    ),
    "sd15": ModelCard(
        name="sd15",
        summary="the published InstanceDiffusion adapter on Stable Diffusion 1.5",
        licence="CreativeML OpenRAIL-M (base); see the repository for the adapter",
        side_px=512,
        adapter=RemoteFile(
            repository="xudongw/InstanceDiffusion",
            revision="main",
            file="instancediffusion_sd15.pth",
            licence="not stated in the repository's metadata as far as we know",
        ),
        base=RemoteFile(
            repository="stable-diffusion-v1-5/stable-diffusion-v1-5",
            revision="451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
            licence="creativeml-openrail-m",
        ),
    ),
}


def mini_folder() -> Path:
    """The folder of the model in the package.

    Raises:
        ModelError: the package was installed without its weights.
    """
    folder = Path(str(resources.files("instancediffusion"))) / "models" / "mini"
    if not (folder / INDEX).is_file():
        raise ModelError(f"model mini: {folder} is missing; reinstall the package, its weights are part of it")
    return folder


def weights_sha256(folder: Path) -> str:
    """One hash for all weights of a model folder: over the names and hashes of its safetensors files.

    LoRA files that lie in it are no part of the model.

    Of a model in one file it is the hash of the file; without safetensors, that of the checkpoints there are.
    """
    if folder.is_file():
        return file_sha256(folder)
    digest = hashlib.sha256()
    files = sorted(set(folder.rglob("*.safetensors")) - set((folder / LORA_FOLDER).glob("*.safetensors")))
    files = files or sorted(path for path in folder.iterdir() if path.suffix in (".ckpt", ".pth", ".pt", ".bin"))
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()} {file_sha256(path)}\n".encode())
    return digest.hexdigest()


def licence_of(name: str, folder: Path) -> str:
    """The licence of a model as far as it is stated: by its card here, else by the README.md of its folder; else ""."""
    if name in CARDS:
        return CARDS[name].licence
    try:
        stated = HubCard.load(folder / "README.md").data.to_dict().get("license") if folder.is_dir() else None
    except (OSError, ValueError, YAMLError):
        return ""
    return stated if isinstance(stated, str) else ""
