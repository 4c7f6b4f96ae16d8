"""Pictures of scenes: where the objects are to be, and contact sheets of many pictures. Pillow only, no torch."""

from .overlay import render_overlay, render_overlay_svg
from .sheet import contact_sheet

__all__ = ["contact_sheet", "render_overlay", "render_overlay_svg"]
