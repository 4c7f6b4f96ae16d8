"""Weights in and out: what people have of a model, our folders, the hub, and the cards of named models."""

from instancediffusion.checkpoints.adapters import AdapterSource, local_adapter, read_adapter
from instancediffusion.checkpoints.cards import CARDS, ModelCard, licence_of, mini_folder, weights_sha256
from instancediffusion.checkpoints.contents import WeightsFile, open_weights
from instancediffusion.checkpoints.folder import (
    check_new_folder,
    model_folder,
    shared_tokenizer,
    tokenizers_for,
    write_adapter,
    write_folder,
)
from instancediffusion.checkpoints.index import model_defaults, read_index
from instancediffusion.checkpoints.published import (
    OfficialComponents,
    load_official,
    load_official_adapter,
    official_scheduler,
)
from instancediffusion.checkpoints.single_file import SingleFileComponents, load_single_file
from instancediffusion.checkpoints.spliced import load_spliced

__all__ = [
    "CARDS",
    "AdapterSource",
    "ModelCard",
    "OfficialComponents",
    "SingleFileComponents",
    "WeightsFile",
    "check_new_folder",
    "licence_of",
    "load_official",
    "load_official_adapter",
    "load_single_file",
    "load_spliced",
    "local_adapter",
    "mini_folder",
    "model_defaults",
    "model_folder",
    "official_scheduler",
    "open_weights",
    "read_adapter",
    "read_index",
    "shared_tokenizer",
    "tokenizers_for",
    "weights_sha256",
    "write_adapter",
    "write_folder",
]
