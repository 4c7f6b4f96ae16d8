"""`coco`: average precision and recall of a detector's detections in the pictures, as COCO defines them.

Lin et al. 2014, and the code of pycocotools, which does the counting. The method's paper reports these numbers on
COCO val2017 with YOLOv8 as the detector (its Table 1 and 2).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from instancediffusion.datasets.formats.coco import crowd_regions
from instancediffusion.errors import ModelError, SettingsError
from instancediffusion.geometry import box_iou, rle_encode, xywh_to_xyxy
from instancediffusion.scene import Instance

from ..estimates import Estimate
from ..report import ScoreTable
from ..seen import resized
from .categories import label_of
from .models import Detection, Models
from .suite import Case, Measure, Published, Row, Scored, Suite, register

MOST = 100
"""Detections of a picture that count, the surest ones; pycocotools' `maxDets`."""

RESAMPLES = 100
_SIZES = ("small", "medium", "large")
_TITLES = {"bbox": "box", "segm": "mask"}


def _measures() -> dict[str, Measure]:
    found: dict[str, Measure] = {}
    for kind, title in _TITLES.items():
        what = f"of {title}es" if kind == "bbox" else "of masks"
        found |= {
            f"{kind}_ap": Measure(f"{title} AP", f"Average precision {what}, mean over IoU .50:.05:.95 and classes."),
            f"{kind}_ap50": Measure(f"{title} AP50", f"Average precision {what} at IoU .50."),
            f"{kind}_ap75": Measure(f"{title} AP75", f"Average precision {what} at IoU .75."),
            f"{kind}_ar": Measure(f"{title} AR", f"Average recall {what} with at most {MOST} detections a picture."),
        }
    return found


@register
class CocoSuite(Suite):
    """Box and mask AP and AR of an object detector's detections.

    What a detector of a fixed list of classes cannot name is left out of the truth, which the report states. Crowd
    regions of a COCO file are ignored regions, as they are in COCO.
    """

    name = "coco"
    title = "COCO: average precision and recall"
    needs = ("detector",)
    measures: ClassVar[Mapping[str, Measure]] = _measures()
    published = (
        Published("real photographs", "paper, YOLOv8m", {"bbox_ap": 0.502, "bbox_ap50": 0.667,
                  "bbox_ar": 0.610, "segm_ap": 0.408, "segm_ap50": 0.635, "segm_ar": 0.580}),
        Published("InstanceDiffusion", "paper, YOLOv8m", {"bbox_ap": 0.388, "bbox_ap50": 0.554, "bbox_ar": 0.529,
                  "segm_ap": 0.271, "segm_ap50": 0.500, "segm_ar": 0.381}),
        Published("GLIGEN", "paper, YOLOv8m", {"bbox_ap": 0.196, "bbox_ap50": 0.350, "bbox_ar": 0.307}),
    )  # fmt: skip

    def __init__(self, resamples: int = RESAMPLES) -> None:
        self.resamples = resamples
        self._crowds: Mapping[int | str, Sequence[tuple[str, Instance]]] = {}
        self._unknown: dict[str, int] = {}
        self._unplaced = 0

    def prepare(self, cases: Sequence[Case], models: Models, path: Path | None) -> None:
        """See which categories the detector knows; pycocotools has to be there.

        Raises:
            SettingsError: it knows none of them, or nothing has a box or mask.
            ModelError: pycocotools is not installed.
        """
        _pycocotools()
        labels = models.detector.labels
        known = 0
        for case in cases:
            for index, instance in enumerate(case.example.scene.instances):
                category = case.example.category(index)
                placed = instance.box is not None or instance.mask is not None
                if label_of(category, labels) is None:
                    self._unknown[category] = self._unknown.get(category, 0) + 1
                elif placed:
                    known += 1
                else:
                    self._unplaced += 1
        if not known:
            unknown = ", ".join(list(self._unknown)[:5])
            raise SettingsError(
                f"coco: no instance with a box or mask is of a class that the detector knows (scenes: {unknown}; "
                f"detector: {', '.join(list(labels)[:5])}, ...); choose a detector of these classes, or `pim`"
            )
        if path is not None:
            self._crowds = crowd_regions(path)

    def notes(self) -> Mapping[str, Any]:
        """Say what of the scenes does not count."""
        notes: dict[str, Any] = {}
        if self._unknown:
            notes["instances of classes the detector does not know, not counted"] = self._unknown
        if self._unplaced:
            notes["instances without box and mask, not counted"] = self._unplaced
        return notes

    def score(self, case: Case, image: Image.Image, models: Models) -> Row:
        """Detect; keeps truth and detections in pixels of the scene's canvas."""
        scene, labels = case.example.scene, models.detector.labels
        size = (scene.height, scene.width)
        truth = []
        for index, instance in enumerate(scene.instances):
            label = label_of(case.example.category(index), labels)
            if label is not None and (instance.box is not None or instance.mask is not None):
                truth.append({"label": label, **_location(instance, size)})
        for category, region in self._crowds.get(case.example.image_id, ()):
            label = label_of(category, labels)
            if label is not None:
                truth.append({"label": label, "crowd": True, **_location(region, size)})
        found = sorted(models.detector(image, case.name), key=lambda one: -one.score)[:MOST]
        return {"size": list(size), "truth": truth, "found": [_found(one, size) for one in found]}

    def badness(self, row: Row) -> float:
        """Fraction of the truth that no detection of its class overlaps by an IoU of .5."""
        truth = [one for one in row["truth"] if not one.get("crowd")]
        missed = 0
        for one in truth:
            others = [xywh_to_xyxy(other["box"]) for other in row["found"] if other["label"] == one["label"]]
            missed += not others or bool(box_iou(xywh_to_xyxy(one["box"]), np.array(others)).max() < 0.5)
        return missed / max(len(truth), 1)

    def aggregate(self, scored: Sequence[Scored]) -> ScoreTable:
        """Count as pycocotools does; masks where truth and detections have them."""
        scores: dict[str, Estimate] = {}
        by: dict[str, dict[str, Estimate]] = {name: {} for name in _SIZES}
        masks = any("counts" in one for item in scored for one in item.row["truth"] if not one.get("crowd")) and any(
            "counts" in one for item in scored for one in item.row["found"]
        )
        for kind in ("bbox", "segm") if masks else ("bbox",):
            values, low, high, sizes = average_precision(scored, kind, self.resamples)
            count = sum(_counts(one, kind) for item in scored for one in item.row["truth"])
            for name, value in values.items():
                if not np.isnan(value):
                    scores[f"{kind}_{name}"] = Estimate(value, low[name], high[name], count)
            for size, value in sizes.items():
                if not np.isnan(value):
                    by[size][f"{kind}_ap"] = Estimate(value, value, value, count)
        sizes_by = {size: found for size, found in by.items() if found}
        return ScoreTable(
            len(scored), scores, {"size of the instance, without intervals": sizes_by} if sizes_by else {}
        )


def average_precision(
    scored: Sequence[Scored], kind: str, resamples: int, seed: int = 0
) -> tuple[dict[str, float], dict[str, float], dict[str, float], dict[str, float]]:
    """Compute COCO's numbers of scored pictures.

    Args:
        scored: pictures with rows of `CocoSuite.score`.
        kind: "bbox" or "segm".
        resamples: bootstrap resamples of whole cases for the interval.
        seed: of the bootstrap.

    Returns:
        ap, ap50, ap75, ar; lower and upper ends of their intervals; AP of small, medium and large instances (area
        below 32^2, below 96^2, from 96^2 pixels of the canvas on). NaN where there is no truth.
    """
    truth_type, evaluation = _pycocotools()
    names = sorted({one["label"] for item in scored for side in ("truth", "found") for one in item.row[side]})
    numbers = {name: number for number, name in enumerate(names, 1)}
    images = [{"id": n, "height": item.row["size"][0], "width": item.row["size"][1]} for n, item in enumerate(scored)]
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    sides = {}
    for side in ("truth", "found"):
        entries: list[dict[str, Any]] = []
        for number, item in enumerate(scored):
            for one in item.row[side]:
                if _has(one, kind):
                    entries.append(_annotation(one, kind, number, numbers[one["label"]], item.row["size"]))
                    entries[-1]["id"] = len(entries)
        with redirect_stdout(io.StringIO()):
            sides[side] = truth_type()
            sides[side].dataset = {"images": images, "annotations": entries, "categories": categories}
            sides[side].createIndex()
    with redirect_stdout(io.StringIO()):
        counter = evaluation(sides["truth"], sides["found"], kind)
        counter.evaluate()
        counter.accumulate()
    values = _summary(counter.eval)
    sizes = {name: _mean(counter.eval["precision"][:, :, :, 1 + index, -1]) for index, name in enumerate(_SIZES)}
    draws = _resampled(counter, [item.case for item in scored], resamples, seed)
    low, high = dict(values), dict(values)
    for name, value in values.items():
        if draws and not np.isnan(value):
            ends = np.nanquantile([one[name] for one in draws], [0.025, 0.975])
            low[name], high[name] = min(float(ends[0]), value), max(float(ends[1]), value)
    return values, low, high, sizes


def _resampled(counter: Any, cases: Sequence[int], resamples: int, seed: int) -> list[dict[str, float]]:
    """Count again over cases sampled with replacement; matches within a picture do not depend on the others."""
    clusters, owner = np.unique(cases, return_inverse=True)
    if len(clusters) < 2:
        return []
    members = [np.flatnonzero(owner == number) for number in range(len(clusters))]
    params, count = counter._paramsEval, len(cases)
    flat = np.empty(len(counter.evalImgs), object)
    flat[:] = counter.evalImgs
    blocks = flat.reshape(len(params.catIds), len(params.areaRng), count)
    rng = np.random.Generator(np.random.PCG64(seed))
    found = []
    params.areaRng, params.maxDets = params.areaRng[:1], params.maxDets[-1:]
    for _ in range(resamples):
        drawn = np.concatenate([members[k] for k in rng.integers(len(clusters), size=len(clusters))])
        counter.evalImgs = blocks[:, :1, drawn].ravel().tolist()
        params.imgIds = list(range(len(drawn)))
        with redirect_stdout(io.StringIO()):
            counter.accumulate(params)
        found.append(_summary(counter.eval))
    return found


def _summary(counted: Mapping[str, Any]) -> dict[str, float]:
    """Precision is (IoU, recall, class, area, most) and recall (IoU, class, area, most); -1 where there is no truth."""
    precision = counted["precision"][:, :, :, 0, -1]
    return {
        "ap": _mean(precision),
        "ap50": _mean(precision[0]),
        "ap75": _mean(precision[5]),
        "ar": _mean(counted["recall"][:, :, 0, -1]),
    }


def _mean(values: npt.NDArray[np.float64]) -> float:
    there = values[values > -1]
    return float(there.mean()) if there.size else float("nan")


def _location(instance: Instance, size: tuple[int, int]) -> dict[str, Any]:
    """The box (x, y, width, height in pixels) and the mask of an instance; a box is made of a mask if need be."""
    height, width = size
    location: dict[str, Any] = {}
    if instance.mask is not None:
        location = {"counts": instance.mask.counts, "area": float(instance.mask.area)}
    if instance.box is not None:
        x0, y0, x1, y1 = instance.box.xyxy
        location["box"] = [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height]
    elif instance.mask is not None:
        rows, columns = (np.flatnonzero(instance.mask.array.any(axis)) for axis in (1, 0))
        location["box"] = [float(v) for v in (columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1)]
    location.setdefault("area", location["box"][2] * location["box"][3])
    return location


def _found(one: Detection, size: tuple[int, int]) -> dict[str, Any]:
    height, width = size
    x0, y0, x1, y1 = (float(v) for v in one.box)
    box = [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height]
    detection: dict[str, Any] = {"label": one.label, "score": float(one.score), "box": box}
    if one.mask is not None:
        mask = resized(one.mask.astype(np.uint8), size) > 0
        detection |= {"counts": rle_encode(mask), "area": float(mask.sum())}
    return detection


def _has(one: Mapping[str, Any], kind: str) -> bool:
    return "counts" in one if kind == "segm" else "box" in one


def _counts(one: Mapping[str, Any], kind: str) -> int:
    return int(_has(one, kind) and not one.get("crowd"))


def _annotation(one: Mapping[str, Any], kind: str, image: int, category: int, size: Sequence[int]) -> dict[str, Any]:
    found: dict[str, Any] = {"image_id": image, "category_id": category, "iscrowd": int(bool(one.get("crowd")))}
    box = one.get("box", [0.0, 0.0, 0.0, 0.0])
    area = one["area"] if "area" in one and (kind == "segm" or "score" not in one) else box[2] * box[3]
    found |= {"bbox": box, "area": area, **({"score": one["score"]} if "score" in one else {})}
    if kind == "segm":
        found["segmentation"] = {"size": list(size), "counts": one["counts"].encode()}
    return found


def _pycocotools() -> tuple[Any, Any]:
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ModelError("coco: pycocotools is not installed; pip install 'instancediffusion[bench]'") from error
    return COCO, COCOeval
