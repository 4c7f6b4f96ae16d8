"""A finished model as the start of a run: its weights, its text model, its latents.

Latents may get more channels (`BlockCode.widened`). Weights that read or write latents are then filled up with zeros:
the network begins as if the new channels were not there. (What is read here of an encoder is written over.)
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from instancediffusion.checkpoints.cards import CARDS
from instancediffusion.checkpoints.folder import model_folder
from instancediffusion.errors import SettingsError
from instancediffusion.training.text import TextSide

LATENT_CODE = "latents.safetensors"
WEIGHTS = "diffusion_pytorch_model.safetensors"
WIDENED = ("conv_in", "conv_out", "quant_conv", "post_quant_conv")
"""Layers next to the latents, in UNets and autoencoders."""


def start_folder(name: str, needed: str = LATENT_CODE) -> Path:
    """Find a start: the name of a card, or the folder of an export.

    Args:
        name: of the start.
        needed: a file that the run goes on from.

    Raises:
        SettingsError: it is no model of this project's training.
    """
    folder = model_folder(name) if name in CARDS else Path(name).expanduser()
    if not (folder / needed).is_file():
        raise SettingsError(f"start = {name!r}: {folder / needed} is missing; give the folder of an export")
    return folder


def load_text(folder: Path) -> TextSide:
    """Load tokenizer and text model."""
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    return TextSide(tokenizer, CLIPTextModel.from_pretrained(folder / "text_encoder").float())


def load_start(module: nn.Module, folder: Path, part: str) -> None:
    """Put the weights of a component into a module of the same architecture, whose latents may have more channels.

    Raises:
        SettingsError: the architectures differ in anything else.
    """
    weights = load_file(folder / part / WEIGHTS)
    own = module.state_dict()
    if weights.keys() != own.keys():
        differing = sorted(weights.keys() ^ own.keys())
        raise SettingsError(f"start: {folder / part} has another architecture than the recipe: {', '.join(differing)}")
    for name, value in own.items():
        found = weights[name].to(value)
        if found.shape == value.shape:
            value.copy_(found)
        elif name.split(".")[-2] in WIDENED and found.dim() == value.dim():
            _fill_up(value, found)
        else:
            raise SettingsError(
                f"start: {folder / part}: {name} has the shape {tuple(found.shape)}, the recipe asks for "
                f"{tuple(value.shape)}"
            )


def _fill_up(target: Tensor, source: Tensor) -> None:
    """Copy into the first channels, zero the others."""
    target.zero_()
    target[tuple(slice(size) for size in source.shape)] = source
