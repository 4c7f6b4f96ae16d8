"""The studio: a local web page in which a person draws a scene and gets the picture.

Everything but `app` works without Gradio and without a server, so that it can be used and tested alone.
"""

from instancediffusion.studio.engine import Engine
from instancediffusion.studio.limits import Limits
from instancediffusion.studio.operations import Studio
from instancediffusion.studio.store import RunStore

__all__ = ["Engine", "Limits", "RunStore", "Studio"]
