"""Text-to-image generation in which every object has its own caption, its own location and its own layer.

The public names below are loaded on first use, so `import instancediffusion` costs milliseconds and loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from instancediffusion import moved as old

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


old.install()
