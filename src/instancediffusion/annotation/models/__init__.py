"""Models of `transformers` as stages, each in a module of its own. No torchvision is needed."""

from .building import KNOWN, FoundModels, find_models

__all__ = ["KNOWN", "FoundModels", "find_models"]
