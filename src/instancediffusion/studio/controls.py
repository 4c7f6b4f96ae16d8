"""The settings and presets a user may change, as the page reads them; both are stated at `GenerationSettings`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from instancediffusion.presets import PRESETS
from instancediffusion.settings import SETTINGS, GenerationSettings, Setting

OWN = "default"
"""The preset that is none: the settings the model is best run with."""


def controls() -> tuple[Setting, ...]:
    """The settings that have a control."""
    return tuple(setting for setting in SETTINGS.values() if setting.label)


def described(defaults: GenerationSettings) -> list[dict[str, Any]]:
    """The controls as the page reads them, with the model's own value of each."""
    found = []
    for setting in controls():
        entry: dict[str, Any] = {
            "name": setting.name,
            "label": setting.label,
            "paper": setting.paper or setting.name,
            "help": setting.help,
            "default": getattr(defaults, setting.name),
        }
        if setting.choices:
            entry["choices"] = [{"value": word, "label": setting.words.get(word, word)} for word in setting.choices]
            entry["optional"] = setting.optional
        elif setting.slider is not None:
            entry |= dict(zip(("low", "high", "step"), setting.slider, strict=True))
        found.append(entry)
    return found


def preset_names() -> list[str]:
    """What a request may name as its preset."""
    return [OWN, *PRESETS]


def with_preset(name: str, defaults: GenerationSettings, loras: Iterable[str] = ()) -> GenerationSettings:
    """The model's own settings, or those of a preset on top; see `GenerationSettings.preset`."""
    return defaults if name == OWN else GenerationSettings.preset(name, defaults, loras)


def described_presets(defaults: GenerationSettings) -> list[Mapping[str, Any]]:
    """The presets as the page reads them, each with what it changes of the model's own settings."""
    return [
        {"name": OWN, "label": "Default", "help": "What the model is best run with.", "settings": {}},
        *(
            {"name": name, "label": name.capitalize(), "help": preset.help, "settings": _changes(name, defaults)}
            for name, preset in PRESETS.items()
        ),
    ]


def _changes(name: str, defaults: GenerationSettings) -> dict[str, Any]:
    usual, chosen = defaults.to_dict(), with_preset(name, defaults).to_dict()
    return {field: value for field, value in chosen.items() if value != usual[field]}
