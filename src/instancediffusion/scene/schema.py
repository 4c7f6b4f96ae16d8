"""The JSON Schema of the native format, made from the bounds and key tables the reader uses."""

from __future__ import annotations

from typing import Any

from .formats.native import REQUIRED_KEYS, SCENE_KEYS, instance_keys
from .limits import (
    FORMAT_VERSION,
    MAX_INSTANCES,
    MAX_SIDE_PX,
    MAX_Z_ORDER,
    MIN_SIDE_PX,
)
from .locations import LOCATIONS

_Schema = dict[str, Any]


def json_schema() -> _Schema:
    """Return the schema (draft 2020-12) of the native scene format.

    It states what a schema can state: keys, types and ranges. That boxes have an area and lie on the canvas, and that
    masks fit it, is checked on reading.
    """
    properties = {
        "$schema": {"type": "string", "description": "For editors; not read."},
        "version": {"const": FORMAT_VERSION, "description": "Version of this format."},
        "prompt": _text("The whole picture in words."),
        "negative_prompt": {"type": "string", "description": "What the picture is not to show."},
        "width": _integer("Width of the canvas in pixels.", MIN_SIDE_PX, MAX_SIDE_PX),
        "height": _integer("Height of the canvas in pixels.", MIN_SIDE_PX, MAX_SIDE_PX),
        "instances": {
            "type": "array",
            "description": "The objects, in any order.",
            "maxItems": MAX_INSTANCES,
            "items": {"$ref": "#/$defs/instance"},
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "instancediffusion scene",
        "description": "A picture to be made: a prompt, a canvas, and objects with a caption and a place each.",
        "type": "object",
        "required": list(REQUIRED_KEYS),
        "additionalProperties": False,
        "properties": {key: properties[key] for key in SCENE_KEYS},
        "$defs": {"instance": _instance(), "position": _position()},
    }


def _instance() -> _Schema:
    properties = {
        "caption": _text("The object in words."),
        **{name: location.schema() for name, location in LOCATIONS.items()},
        "z_order": _integer("Layer; larger is nearer to the viewer.", -MAX_Z_ORDER, MAX_Z_ORDER),
        "negative": {"type": "string", "description": "What the object is not to look like, in words."},
        "reference": _text(
            "A PNG, JPEG or WebP file in the scene's folder of what it is to look like, or its data: URI."
        ),
    }
    return {
        "type": "object",
        "required": ["caption"],
        "anyOf": [{"required": [kind]} for kind in LOCATIONS],
        "additionalProperties": False,
        "properties": {key: properties[key] for key in instance_keys()},
    }


def _position() -> _Schema:
    return {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}


def _text(description: str) -> _Schema:
    return {"type": "string", "pattern": r"\S", "description": description}


def _integer(description: str, low: int, high: int) -> _Schema:
    return {"type": "integer", "minimum": low, "maximum": high, "description": description}
