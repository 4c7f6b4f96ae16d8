"""Text-to-image generation in which every object has its own caption, its own place and its own layer.

The public names below are loaded on first use, so `import instancediffusion` costs milliseconds and loads no torch.
"""

import sys
import warnings
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from instancediffusion.adapter import InstanceAdapter
    from instancediffusion.pipeline import InstanceDiffusionPipeline
    from instancediffusion.scene import Box, Instance, Mask, Point, Scene, Scribble, load_scene, save_scene

__version__ = "0.1.0"

__all__ = [
    "Box",
    "Instance",
    "InstanceAdapter",
    "InstanceDiffusionPipeline",
    "Mask",
    "Point",
    "Scene",
    "Scribble",
    "__version__",
    "load_scene",
    "save_scene",
]

_HOMES = {
    "Box": "scene",
    "Instance": "scene",
    "InstanceAdapter": "adapter",
    "InstanceDiffusionPipeline": "pipeline",
    "Mask": "scene",
    "Point": "scene",
    "Scene": "scene",
    "Scribble": "scene",
    "load_scene": "scene",
    "save_scene": "scene",
}


def __getattr__(name: str) -> Any:
    """Import the package that holds a public name the first time the name is used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})


_MOVED = {
    "annotation.models.loading": "annotation.models.pinning",
    "annotation.objects": "annotation.selection",
    "annotation.order": "annotation.depth_order",
    "evaluation.judges.lessons": "evaluation.judges.label_maps",
    "evaluation.suites.report": "evaluation.suites.suite_report",
    "studio.seeds": "studio.store",
    "training.frozen": "training.checkpoint",
    "training.language.reading": "training.language.reading_task",
    "training.language.start": "training.language.distilled",
    "training.language.words": "training.language.words_task",
    "training.relative": "training.relative_task",
    "training.scoring": "training.preview",
    "training.seeds": "training.task",
    "training.start": "training.pretrained",
    "worlds.catalogue.outdoors": "worlds.catalogue.landscape",
    "worlds.catalogue.palettes": "worlds.colours",
    "worlds.export": "worlds.coco_export",
    "worlds.sheets": "worlds.contact_sheets",
}
"""Modules by their old names, and where what they held is now. The old names go with the next release."""


class _OldNames:
    """Imports modules by their old names, with a warning; see `sys.meta_path`."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        """Find an old name."""
        package, _, old = name.partition(".")
        return ModuleSpec(name, self) if package == __name__ and old in _MOVED else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Fill the old module with what the new one has."""
        name = f"{__name__}.{_MOVED[module.__name__.removeprefix(__name__ + '.')]}"
        warnings.warn(f"{module.__name__} is now {name}; the old name goes with the next release", FutureWarning, 2)
        new = import_module(name)
        module.__dict__.update({key: value for key, value in vars(new).items() if not key.startswith("__")})


if not any(type(finder).__name__ == "_OldNames" for finder in sys.meta_path):  # after what finds modules that are there
    sys.meta_path.append(_OldNames())
