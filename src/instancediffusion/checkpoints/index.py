"""A model folder's index, `model_index.json`: what the model states of itself, read without loading it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instancediffusion.errors import ModelError
from instancediffusion.settings import GenerationSettings

INDEX = "model_index.json"


def read_index(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What the index of a model folder states; nothing for a model in one file.

    Raises:
        ModelError: the folder has no index, or one that is no JSON object.
    """
    if Path(folder).is_file():
        return {}
    path = Path(folder) / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"model: {folder} holds no {INDEX}; give the folder of a whole pipeline") from error
    except ValueError as error:
        raise ModelError(f"model: {path} is damaged ({error}); write or download it again") from error
    if not isinstance(index, dict):
        raise ModelError(f"model: {path} is damaged (it holds no JSON object); write or download it again")
    return index


def components_of(index: Mapping[str, Any]) -> list[str]:
    """The components that an index names; those it states as absent (`[null, null]`) are left out."""
    return [
        name
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)
        # A class has a capital; the words of a small vocabulary, say, have none.
        if not name.startswith("_") and value[1][:1].isupper()
    ]


def model_defaults(folder: str | os.PathLike[str]) -> GenerationSettings:
    """The settings that a model states as best for it; the library's defaults for a model in one file.

    Raises:
        ModelError: see `read_index`.
        SettingsError: the model states settings that do not exist, or are out of range.
    """
    return GenerationSettings.from_dict(read_index(folder).get("default_settings") or {})
