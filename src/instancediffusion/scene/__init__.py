"""Scenes: what a picture is to show, where each object is, and the files that say so. No torch."""

from .files import SceneCheck, check_scene, check_scene_text, load_scene, save_scene, scene_from_text, scene_text
from .formats.coco import CocoScene, coco_paths, read_coco, write_coco
from .formats.foreign.entries import NamedScene, ReadOptions
from .formats.scene_format import READ, SceneFormat, register, written
from .locations import LOCATIONS, Box, Location, Mask, Point, Scribble, register_location
from .model import KINDS, Instance, Scene
from .ordering import ordered, without_order
from .reference import Reference
from .resizing import resize_scene
from .schema import json_schema
from .sources import SourceCheck, check_source, check_source_bytes, load_scenes

__all__ = [
    "KINDS",
    "LOCATIONS",
    "READ",
    "Box",
    "CocoScene",
    "Instance",
    "Location",
    "Mask",
    "NamedScene",
    "Point",
    "ReadOptions",
    "Reference",
    "Scene",
    "SceneCheck",
    "SceneFormat",
    "Scribble",
    "SourceCheck",
    "check_scene",
    "check_scene_text",
    "check_source",
    "check_source_bytes",
    "coco_paths",
    "json_schema",
    "load_scene",
    "load_scenes",
    "ordered",
    "read_coco",
    "register",
    "register_location",
    "resize_scene",
    "save_scene",
    "scene_from_text",
    "scene_text",
    "without_order",
    "write_coco",
    "written",
]
