"""Amodal data sets in their own spellings of COCO: whole masks as `segmentation`, the visible part as `visible`.

- COCOA (Zhu et al., "Semantic Amodal Segmentation", CVPR 2017): one annotation for each picture, with `regions` that
  have a name, a whole polygon, and a `visible_mask` if something hides a part.
- KINS (Qi et al., CVPR 2019): `a_segm`, `a_bbox` and `i_segm`, or `segmentation` and `inmodal_seg`.
- D2SA, COCOA-cls: `visible_mask` beside `segmentation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instancediffusion.scene.checks import is_array

VISIBLE = ("visible", "visible_mask", "inmodal_seg", "i_segm")
"""Keys of the visible part of an object, the first that is there counts."""


def as_coco(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """COCO data in our spelling; what is no amodal data set comes back as it is."""
    given = data["annotations"]
    if any(isinstance(item, Mapping) and is_array(item.get("regions")) for item in given):
        return _of_regions(data)
    return {**data, "annotations": [_of_keys(item) if isinstance(item, Mapping) else item for item in given]}


def _of_keys(item: Mapping[str, Any]) -> Mapping[str, Any]:
    changes: dict[str, Any] = {}
    for key, theirs in (("segmentation", "a_segm"), ("bbox", "a_bbox")):
        if not item.get(key) and item.get(theirs):
            changes[key] = item[theirs]
    seen = next((item[key] for key in VISIBLE if item.get(key)), None)
    if seen is not None and "visible" not in item:
        changes["visible"] = seen
    return {**item, **changes} if changes else item


def _of_regions(data: Mapping[str, Any]) -> Mapping[str, Any]:
    names: dict[str, int] = {}
    annotations: list[Any] = []
    for item in data["annotations"]:
        regions = item.get("regions") if isinstance(item, Mapping) else None
        for region in regions if is_array(regions) else ():
            if not isinstance(region, Mapping):
                continue
            name = region.get("name")
            known = isinstance(name, str) and bool(name.strip())
            whole = region.get("segmentation")
            entry = {"id": len(annotations) + 1, "image_id": item.get("image_id"), "segmentation": whole}
            entry["category_id"] = names.setdefault(str(name).strip() if known else "object", len(names) + 1)
            # A region without a mask of its own is visible as a whole.
            entry["visible"] = region.get("visible_mask") or whole
            if is_array(whole) and whole and not is_array(whole[0]) and not isinstance(whole[0], Mapping):
                entry |= {"segmentation": [whole], "visible": region.get("visible_mask") or [whole]}
            annotations.append(entry)
    categories = [{"id": number, "name": name} for name, number in names.items()]
    return {**data, "annotations": annotations, "categories": categories}
