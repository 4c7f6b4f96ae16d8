"""Scenes: what a picture is to show, where each object is, and the files that say so. No torch."""

from .arranging import Arrangement
from .files import SceneCheck, check_scene, check_scene_text, load_scene, save_scene, scene_from_text, scene_text
from .formats.coco import CocoScene, coco_paths, read_coco, write_coco
from .locations import Box, Mask, Point, Scribble
from .mentions import Mention, Noun, mentions
from .model import KINDS, Instance, Scene
from .resizing import resize_scene
from .schema import json_schema

__all__ = [
    "KINDS",
    "Arrangement",
    "Box",
    "CocoScene",
    "Instance",
    "Mask",
    "Mention",
    "Noun",
    "Point",
    "Scene",
    "SceneCheck",
    "Scribble",
    "check_scene",
    "check_scene_text",
    "coco_paths",
    "json_schema",
    "load_scene",
    "mentions",
    "read_coco",
    "resize_scene",
    "save_scene",
    "scene_from_text",
    "scene_text",
    "write_coco",
]
