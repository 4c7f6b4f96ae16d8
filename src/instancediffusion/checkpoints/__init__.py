"""Weights in and out: the published checkpoint, our folders, and the cards of named models."""

from instancediffusion.checkpoints.cards import CARDS, ModelCard, mini_folder, weights_sha256
from instancediffusion.checkpoints.folder import check_new_folder, model_folder, write_folder
from instancediffusion.checkpoints.official import OfficialComponents, load_official, official_scheduler

__all__ = [
    "CARDS",
    "ModelCard",
    "OfficialComponents",
    "check_new_folder",
    "load_official",
    "mini_folder",
    "model_folder",
    "official_scheduler",
    "weights_sha256",
    "write_folder",
]
