"""JSON files that are recognised and not read: each says what it is, and what to do with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..checks import is_array
from .scene_format import SceneFormat, register


def _has(*signatures: set[str]) -> Callable[[Any], bool]:
    """Whether data is an object that has all keys of one of the signatures."""
    return lambda value: isinstance(value, Mapping) and any(keys <= value.keys() for keys in signatures)


def _first(value: Any) -> Mapping[str, Any]:
    """The first object of a list; an empty one if there is none."""
    return next((item for item in value if isinstance(item, Mapping)), {}) if is_array(value) else {}


def _is_results(value: Any) -> bool:
    first = _first(value)
    return {"image_id", "category_id"} <= first.keys() and ("bbox" in first or "segmentation" in first)


def _is_createml(value: Any) -> bool:
    first = _first(value)
    return "annotations" in first and ("image" in first or "imagefilename" in first)


def _is_labelbox(value: Any) -> bool:
    known = _has({"data_row", "projects"})
    return known(value) or known(_first(value)) or "Labeled Data" in _first(value)


def _is_comfyui(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    nodes = list(value.values())[:50]
    graph = bool(nodes) and all(isinstance(item, Mapping) and "class_type" in item for item in nodes)
    return graph or ("nodes" in value and "links" in value)


def _is_via(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    files = (item for item in value.values() if isinstance(item, Mapping))
    return "_via_img_metadata" in value or any("filename" in item and "regions" in item for item in files)


for name, title, fix, recognise in (
    (
        "via",
        "a project of the VGG Image Annotator, which does not state the pictures' sizes",
        "export it as COCO (Annotation > Export Annotations (COCO format))",
        _is_via,
    ),
    (
        "comfyui",
        "a ComfyUI workflow",
        "open it in ComfyUI (integrations/comfyui has nodes for this program), or write a scene",
        _is_comfyui,
    ),
    (
        "settings",
        "a file of settings",
        "give them as options or in a configuration file (--config)",
        _has({"num_inference_steps", "guidance_scale"}),
    ),
    (
        "manifest",
        "the manifest of a run",
        "give one of the run's pictures: each carries its scene",
        _has({"version", "kind", "items"}),
    ),
    ("labelbox", "a Labelbox export", "export as COCO", _is_labelbox),
    ("supervisely", "a Supervisely annotation", "export as COCO", _has({"size", "objects", "tags"})),
    (
        "createml",
        "a CreateML file, which does not state the pictures' sizes",
        "export as COCO",
        _is_createml,
    ),
    (
        "coco-results",
        "a COCO results file: detections, without the pictures' sizes and the names of the classes",
        "give the annotations file they belong to",
        _is_results,
    ),
):
    register(SceneFormat(name, title, recognise=recognise, fix=fix))
