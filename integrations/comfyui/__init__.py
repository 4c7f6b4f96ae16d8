"""Nodes for ComfyUI: load a pipeline, make a scene of boxes, masks and layers, generate image and masks.

Copy or link this folder into ComfyUI's `custom_nodes`, and `pip install instancediffusion` into its Python.
"""

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
