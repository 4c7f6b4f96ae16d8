"""The studio: a local web page in which a user draws a scene and gets the picture.

Everything but `app` works without Gradio and without a server, so that it can be used and tested alone. The names
below are loaded on first use, so that the command can refuse its options before it loads torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from instancediffusion.studio.bounds import Limits
    from instancediffusion.studio.engine import Engine
    from instancediffusion.studio.operations import Studio
    from instancediffusion.studio.store import RunStore

__all__ = ["Engine", "Limits", "RunStore", "Studio"]

_HOMES = {"Engine": "engine", "Limits": "limits", "RunStore": "store", "Studio": "operations"}


def __getattr__(name: str) -> Any:
    """Import the module that holds a name the first time the name is used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
