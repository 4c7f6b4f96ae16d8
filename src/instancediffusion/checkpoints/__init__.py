"""Weights in and out: the published checkpoint, our folders, and the cards of named models."""

from instancediffusion.checkpoints.cards import CARDS, ModelCard, mini_folder
from instancediffusion.checkpoints.official import OfficialComponents, load_official

__all__ = ["CARDS", "ModelCard", "OfficialComponents", "load_official", "mini_folder"]
