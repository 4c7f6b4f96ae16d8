"""COCO as one of the formats that are recognised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ... import json_text
from ...checks import check_object
from ...limits import MAX_COCO_BYTES
from ...problem_report import Report
from ..foreign.entries import NamedScene, ReadOptions, distinct_names
from ..scene_format import SceneFormat, register
from .reading import read_coco_data


def _is_coco(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    if {"images", "annotations"} <= value.keys() and "instances" not in value:
        return True
    return "categories" in value and ("annotations" in value or "images" in value) and "prompt" not in value


def _read(data: Any, report: Report, options: ReadOptions) -> list[NamedScene]:
    top = check_object(report, "$", data)
    texts = None
    if options.captions is not None:
        with open(options.captions, "rb") as file:
            texts = check_object(report, "$", json_text.parse(report, file.read(MAX_COCO_BYTES)))
    if top is None or report.failed:
        return []
    scenes = read_coco_data(top, report, texts, image_ids=options.image_ids)
    names = distinct_names([item.file_name for item in scenes])
    return [
        NamedScene(name, item.scene, item.image_id, item.file_name) for name, item in zip(names, scenes, strict=True)
    ]


COCO = register(SceneFormat("coco", "a COCO file", recognise=_is_coco, read=_read))
