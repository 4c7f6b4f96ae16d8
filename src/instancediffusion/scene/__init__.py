"""Scenes: what a picture is to show, where each object is, and the files that say so. No torch."""

from .files import SceneCheck, check_scene, load_scene, save_scene, scene_from_text, scene_text
from .locations import Box, Mask, Point, Scribble
from .model import KINDS, Instance, Scene

__all__ = [
    "KINDS",
    "Box",
    "Instance",
    "Mask",
    "Point",
    "Scene",
    "SceneCheck",
    "Scribble",
    "check_scene",
    "load_scene",
    "save_scene",
    "scene_from_text",
    "scene_text",
]
