"""`7bench`: do objects lie in their boxes? 7Bench (Izzo et al. 2025), as published and repaired.

224 prompts with boxes in seven scenarios; the file is part of this package (MIT licence). Its script asks OWLv2 for the
names of a scene's objects and keeps of each name the detection that fits the given box best. The layout score of a
picture is the area under the fraction of objects whose IoU is at least k, for k = 0, .1, ... 1. Thereby

- an object that is not detected has an IoU of 0, which is "at least 0": it adds .05, unless nothing at all is detected;
- of many detections the one that flatters counts, however unsure (the paper says the surest one);
- objects are kept by their names: of two of one name one is forgotten.

Repaired: the surest detections of a name, as many as it has objects, are paired with them for the largest sum of IoU;
what is not detected has an IoU of 0. The area under the fraction of objects is then the mean IoU itself. The text score
of 7Bench asks a language model's questions of a vision-language model (TIFA) and is not computed here.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from instancediffusion.datasets import Example
from instancediffusion.datasets.file_access import read_bounded
from instancediffusion.errors import SettingsError
from instancediffusion.geometry import box_iou
from instancediffusion.scene import Box, Instance, Scene

from ..assignment import assign
from ..estimates import Estimate
from ..report import ScoreTable
from .models import Floats, Models
from .suite import Case, Measure, Row, Scored, Suite, Values, known, register

SIDE_PX = 512
THRESHOLD = 0.1
"""Confidence from which a detection counts."""

STEPS = np.arange(11) / 10


@register
class SevenBenchSuite(Suite):
    """7Bench's layout score; also of C-Bench and O-Bench, whose files have the same form."""

    name = "7bench"
    title = "7Bench: layout score"
    needs = ("phrases",)
    defaults: ClassVar[Mapping[str, str]] = {"phrases": "google/owlv2-base-patch16-ensemble"}
    reads = "nothing, or a CSV file with the columns id, prompt, obj1, bbox1, ... and perhaps category"
    measures: ClassVar[Mapping[str, Measure]] = {
        "miou": Measure("mean IoU", "Of given boxes and the surest detections of their names; 0 if not detected."),
        "accuracy": Measure("accuracy", "Fraction of objects whose IoU, so found, is at least .5."),
        "published_layout": Measure(
            "layout score, as published",
            "Area under the fraction of objects with IoU of at least k, by the best detection of a name; mean over "
            "pictures.",
            published=True,
        ),
    }

    def cases(self, path: Path | None) -> Sequence[Case] | None:
        """Read a CSV file, or that of the package.

        Raises:
            SettingsError: it has another form.
        """
        if path is None:
            content = (resources.files(__package__) / "benchmarks" / "7bench.csv").read_bytes()
        else:
            content = read_bounded(path)
        return _read(content, str(path or "7bench.csv"))

    def picture_of(self, path: Path) -> str | None:
        """Return the id: of the folder "ID_PROMPT" that holds a picture SEED.jpg, else of the file's own name."""
        inside = re.fullmatch(r"(\d+)_.*", path.parent.name, re.DOTALL)
        if inside is not None:
            return inside[1] if path.stem.isdigit() else ""
        own = re.fullmatch(r"(\d+)(?:_\d+)?", path.stem)
        return own[1] if own is not None else ""

    def score(self, case: Case, image: Image.Image, models: Models) -> Row:
        """Detect the scene's names."""
        instances = case.example.scene.instances
        names = [one.caption for one in instances]
        given = np.array([one.box.xyxy for one in instances if one.box is not None]) * SIDE_PX
        phrases = list(dict.fromkeys(names))
        boxes, scores = models.phrases(image, phrases)
        best, sure = (scores.argmax(1), scores.max(1)) if len(scores) else (np.zeros(0, int), np.zeros(0))
        found = {
            phrase: [k for k in np.argsort(-sure, kind="stable") if best[k] == number and sure[k] >= THRESHOLD]
            for number, phrase in enumerate(phrases)
        }
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4) * SIDE_PX
        ious = [0.0] * len(names)
        published = []
        for phrase, chosen in found.items():
            members = [index for index, name in enumerate(names) if name == phrase]
            # The script counts pixels, ends included, and keeps the last object of a name.
            published.append(
                float(box_iou(given[members[-1]], _pixels(boxes[chosen])).max(initial=0.0)) if chosen else 0.0
            )
            gain = box_iou(given[members], boxes[chosen[: len(members)]])
            for row, column in assign(gain) if chosen else []:
                ious[members[row]] = float(gain[row, column])
        return {"iou": ious, "published": published, "detected": bool(any(found.values()))}

    def aggregate(self, scored: Sequence[Scored]) -> ScoreTable:
        """Average over objects (as published: over pictures), and by scenario."""
        groups = sorted({item.group for item in scored if item.group})
        by = {group: self._scores([item for item in scored if item.group == group]) for group in groups}
        return ScoreTable(len(scored), self._scores(scored), {"scenario": by} if by else {})

    def badness(self, row: Row) -> float:
        """One less the mean IoU."""
        return 1.0 - float(np.mean(row["iou"]))

    def _scores(self, scored: Sequence[Scored]) -> dict[str, Estimate]:
        values = {name: Values() for name in self.measures}
        for number, item in enumerate(scored):
            for iou in item.row["iou"]:
                values["miou"].add(iou, number, item.case)
                values["accuracy"].add(iou >= 0.5, number, item.case)
            ious = np.array([round(iou, 6) for iou in item.row["published"]])
            fractions = (ious[:, None] >= STEPS).mean(0)
            area = float(np.sum((fractions[1:] + fractions[:-1]) / 2 * np.diff(STEPS))) if item.row["detected"] else 0.0
            values["published_layout"].add(area, number, item.case)
        return known({name: one.micro(rate=name == "accuracy") for name, one in values.items()})


def _pixels(boxes: Floats) -> Floats:
    """Return boxes of whole pixels, cut down as the detector's pipeline writes them, both ends included."""
    whole = np.floor(boxes)
    whole[:, 2:] += 1
    return whole


def _read(content: bytes, source: str) -> list[Case]:
    try:
        rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(f"{source}: is no CSV file ({error})") from None
    if not rows or not {"id", "prompt", "obj1", "bbox1"} <= rows[0].keys():
        raise SettingsError(f"{source}: has no columns id, prompt, obj1, bbox1")
    cases = []
    for number, row in enumerate(rows, 2):
        instances = []
        for index in range(1, 17):
            name, box = (row.get(f"obj{index}") or "").strip(), row.get(f"bbox{index}")
            if name and box:
                instances.append(Instance(name, box=_box(box, f"{source}: line {number}: bbox{index}")))
        if not instances or not (row["prompt"] or "").strip() or not (row["id"] or "").strip().isdigit():
            raise SettingsError(f"{source}: line {number}: needs an id of digits, a prompt, and an object with its box")
        name = row["id"].strip()
        example = Example(Scene(row["prompt"], tuple(instances), SIDE_PX, SIDE_PX), None, f"{name}.png", name)
        cases.append(Case(example, name, (row.get("category") or "").strip()))
    return cases


def _box(text: str, where: str) -> Box:
    """Read "x0,y0,x1,y1" in pixels of 512, both ends included."""
    try:
        x0, y0, x1, y1 = (float(part) for part in text.strip("()[] ").split(","))
    except ValueError:
        raise SettingsError(f"{where}: {text[:60]!r} is not x0,y0,x1,y1") from None
    if not (0 <= x0 <= x1 < SIDE_PX + 1 and 0 <= y0 <= y1 < SIDE_PX + 1):
        raise SettingsError(f"{where}: {text[:60]!r} is no box on {SIDE_PX} x {SIDE_PX} pixels")
    return Box(*(min(value / SIDE_PX, 1.0) for value in (x0, y0, x1 + 1, y1 + 1)))
