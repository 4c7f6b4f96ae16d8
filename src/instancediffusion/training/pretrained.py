"""A finished model as the start of a run: its weights, its text model, its autoencoder."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from instancediffusion.checkpoints.cards import CARDS
from instancediffusion.checkpoints.folder import model_folder
from instancediffusion.errors import SettingsError
from instancediffusion.training.text_model import TextSide

WEIGHTS = "diffusion_pytorch_model.safetensors"
NEEDED = ("vae", "text_encoder", "tokenizer", "unet", "adapter")


def start_folder(name: str, setting: str = "start") -> Path:
    """Find a start, or the finished model that another setting names: the name of a card, or the folder of an export.

    Raises:
        SettingsError: it is no whole model.
    """
    folder = model_folder(name) if name in CARDS else Path(name).expanduser()
    if missing := [part for part in NEEDED if not (folder / part).is_dir()]:
        raise SettingsError(f"{setting} = {name!r}: {folder} has no {', '.join(missing)}; give the folder of an export")
    return folder


def load_text(folder: Path) -> TextSide:
    """Load tokenizer and text model."""
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    return TextSide(tokenizer, CLIPTextModel.from_pretrained(folder / "text_encoder").float())


def load_start(module: nn.Module, folder: Path, part: str) -> None:
    """Put the weights of a component into a module of the same architecture.

    Raises:
        SettingsError: the architectures differ.
    """
    weights = load_file(folder / part / WEIGHTS)
    own = module.state_dict()
    if weights.keys() != own.keys():
        differing = sorted(weights.keys() ^ own.keys())
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise SettingsError(
            f"start: {folder / part} has another architecture than the recipe: {', '.join(differing[:3])}{more} differ"
        )
    for name, value in own.items():
        found = weights[name].to(value)
        if found.shape != value.shape:
            raise SettingsError(
                f"start: {folder / part}: {name} has the shape {tuple(found.shape)}, the recipe asks for "
                f"{tuple(value.shape)}"
            )
        value.copy_(found)
