"""From names of models to stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from instancediffusion.errors import ModelError, SettingsError

from ..annotation_settings import AnnotationSettings
from ..protocols import Stages
from . import captioning, depth, segment_anything
from .captioning import Blip
from .depth import MonocularDepth
from .florence import Florence
from .grounding_dino import GroundingDino
from .pinning import Found, find
from .segment_anything import SegmentAnything

_Maker = Callable[..., Any]
KNOWN: Mapping[str, Mapping[str, _Maker]] = {
    "tagger": {"florence2": Florence},
    "detector": {"grounding-dino": GroundingDino, "mm-grounding-dino": GroundingDino},
    "segmenter": dict.fromkeys(segment_anything.CLASSES, SegmentAnything),
    "captioner": {"florence2": Florence, **dict.fromkeys(captioning.CLASSES, Blip)},
    "depth": dict.fromkeys(depth.TYPES, MonocularDepth),
}
"""Stage -> the model types that can be it -> the adapter."""


@dataclass(frozen=True)
class FoundModels:
    """The models of a run, found and pinned, not loaded.

    Attributes:
        found: stage -> its model.
        batch_size: pictures that go through one at a time.
    """

    found: Mapping[str, Found]
    batch_size: int

    @property
    def pins(self) -> dict[str, dict[str, Any]]:
        """Stage -> what its model is."""
        return {stage: dict(found.pin) for stage, found in self.found.items()}

    def build(self) -> Stages:
        """Load them; one that serves two stages in the same way is loaded once."""
        made: dict[tuple[str, _Maker], Any] = {}
        stages: dict[str, Any] = {}
        for stage, found in self.found.items():
            maker = KNOWN[stage][found.kind]
            if (found.name, maker) not in made:
                made[found.name, maker] = maker(found, self.batch_size)
            stages[stage] = made[found.name, maker]
        return Stages(**stages)


def find_models(settings: AnnotationSettings, device: str = "cpu") -> FoundModels:
    """Find the models that the settings name.

    Without a name a stage is left out; so is the tagger if tags are given, and the depth model if it has no use.

    Raises:
        ModelError: a model is not there, or of a type that cannot be the stage.
        SettingsError: nothing says what to look for, or there is no such kind of device.
    """
    names = dict(vars(settings.models))
    if settings.tags or not names["detector"]:
        names["tagger"] = ""
    elif not names["tagger"]:
        raise SettingsError("tagger: none, and no tags; name a tagger, or say what to look for (--tags)")
    if settings.order not in ("auto", "depth"):
        names["depth"] = ""
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise SettingsError(f"device = {device!r}: {str(error).splitlines()[0]}") from error
    known, found = dict[str, Found](), dict[str, Found]()
    for stage, name in names.items():
        if not name:
            continue
        model = known[name] = known.get(name) or find(name, stage, place)
        if model.kind not in KNOWN[stage]:
            message = f"{stage}: {name} is of type {model.kind!r}"
            raise ModelError(f"{message}; those that can be a {stage}: {', '.join(KNOWN[stage])}")
        found[stage] = model
    return FoundModels(found, settings.batch_size)
