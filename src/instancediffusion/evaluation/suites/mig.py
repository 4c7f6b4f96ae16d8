"""`coco-mig`: instances of a given colour in a given box, as MIGC scores them (Zhou et al., CVPR 2024), and repaired.

The benchmark's files are for non-commercial use and are not part of this package: the user's own
`mig_bench_anno.yaml` (prompt -> phrases with boxes, coco_id) or `sample_prompt_color_split.json` is read. Pictures are
named as its script expects: what stands behind the last underscore is the coco_id.

An instance succeeds if the detection of its class that fits its box best has an IoU of at least .5, and at least a
fifth of what the segmenter outlines in the *given* box has the given colour, by ranges of hue, saturation and value.
The published script lets one detection serve any number of instances; repaired, each serves one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from instancediffusion.datasets import Example
from instancediffusion.datasets.file_access import read_bounded
from instancediffusion.errors import SettingsError
from instancediffusion.geometry import box_iou
from instancediffusion.scene import Box, Instance, Scene

from ..assignment import assign
from ..estimates import Estimate
from ..report import ScoreTable
from .models import Bools, Floats, Models
from .suite import Case, Measure, Published, Row, Scored, Suite, Values, known, register

SIDE_PX = 512
THRESHOLD, SAME = 0.25, 0.8
"""Confidence from which a detection counts, and IoU with a surer one beyond which it does not."""

FITS, COLOURED = 0.5, 0.2
"""IoU of box and detection, and fraction of the outlined pixels in the given colour, that make a success."""

Range = tuple[tuple[int, int, int], tuple[int, int, int]]
RANGES: Mapping[str, Sequence[Range]] = {
    "red": (((0, 50, 70), (9, 255, 255)), ((159, 50, 70), (180, 255, 255))),
    "blue": (((90, 50, 70), (128, 255, 255)),),
    "yellow": (((25, 50, 70), (35, 255, 255)),),
    "green": (((36, 50, 70), (89, 255, 255)),),
    "black": (((0, 0, 0), (180, 255, 30)),),
    "white": (((0, 0, 221), (180, 43, 255)),),
    "brown": (((6, 43, 35), (25, 255, 255)),),
}
"""Lowest and highest hue 0..180, saturation and value 0..255 of each colour: those of the published script as it stands
today; an earlier version had others, so that figures of different years may differ by that alone."""


@register
class MigSuite(Suite):
    """COCO-MIG."""

    name = "coco-mig"
    title = "COCO-MIG: colour and location of instances"
    needs = ("phrases", "segmenter")
    reads = "the benchmark's mig_bench_anno.yaml or sample_prompt_color_split.json"
    measures: ClassVar[Mapping[str, Measure]] = {
        "success": Measure(
            "instance success", "Box (IoU from .5) and colour are right; a detection serves one instance."
        ),
        "published_success": Measure(
            "instance success, as published", "The same; a detection may serve any number.", published=True
        ),
        "published_miou": Measure(
            "mIoU, as published",
            "IoU of box and best detection; 0 if the box fits and the colour is wrong.",
            published=True,
        ),
        "picture_success": Measure(
            "picture success, as published", "All instances of a picture succeed, as published.", published=True
        ),
        "placed": Measure("placed", "The box is right (IoU from .5), whatever the colour; a detection serves one."),
    }
    published = (
        Published("InstanceDiffusion", "MIG-Bench", {"published_miou": 0.46, "published_success": 0.51}),
        Published("MIGC", "MIG-Bench", {"published_miou": 0.56, "published_success": 0.66}),
        Published("GLIGEN", "MIG-Bench", {"published_miou": 0.27, "published_success": 0.30}),
    )

    def cases(self, path: Path | None) -> Sequence[Case] | None:
        """Read the benchmark's annotations.

        Raises:
            SettingsError: there are none, or they are of another form.
        """
        if path is None:
            raise SettingsError(f"suite {self.name}: name {self.reads} (--scenes)")
        return [_case(path, *entry) for entry in _entries(path)]

    def picture_of(self, path: Path) -> str | None:
        """Return the coco_id, which is what stands behind the last underscore."""
        return path.stem.rpartition("_")[2]

    def score(self, case: Case, image: Image.Image, models: Models) -> Row:
        """Detect class by class, outline what the given boxes hold, and measure its colour."""
        given = [_split(one.caption) for one in case.example.scene.instances]
        boxes = np.array([one.box.xyxy for one in case.example.scene.instances if one.box is not None])
        ious: dict[str, Floats] = {}
        for category in dict.fromkeys(category for _, category in given):
            found = _detections(*models.phrases(image, [category]))
            ious[category] = box_iou(boxes, found) if len(found) else np.zeros((len(boxes), 0))
        masks = models.segmenter(image, boxes) > 0
        hsv = to_hsv(np.asarray(image))
        colours = [_fraction(masks[n], hsv, colour) >= COLOURED for n, (colour, _) in enumerate(given)]
        placed = [False] * len(given)
        for category, overlap in ious.items():
            members = [n for n, (_, name) in enumerate(given) if name == category]
            gain = np.where(overlap[members] >= FITS, overlap[members], 0.0)
            for row, column in assign(gain) if gain.size else []:
                placed[members[row]] = bool(gain[row, column] > 0)
        best = [float(ious[category][n].max(initial=0.0)) for n, (_, category) in enumerate(given)]
        return {"iou": best, "coloured": [bool(one) for one in colours], "placed": placed}

    def aggregate(self, scored: Sequence[Scored]) -> ScoreTable:
        """Average over instances (over pictures: picture success), and by the number of instances."""
        levels = sorted({item.group for item in scored})
        by = {level: self._scores([item for item in scored if item.group == level]) for level in levels}
        return ScoreTable(len(scored), self._scores(scored), {"instances": by} if len(levels) > 1 else {})

    def badness(self, row: Row) -> float:
        """Fraction of instances without success."""
        good = [placed and coloured for placed, coloured in zip(row["placed"], row["coloured"], strict=True)]
        return 1.0 - float(np.mean(good))

    def _scores(self, scored: Sequence[Scored]) -> dict[str, Estimate]:
        values = {name: Values() for name in self.measures}
        for number, item in enumerate(scored):
            all_good = True
            for iou, coloured, placed in zip(*(item.row[key] for key in ("iou", "coloured", "placed")), strict=True):
                good = iou >= FITS and coloured
                all_good &= good
                numbers = {
                    "success": placed and coloured,
                    "placed": placed,
                    "published_success": good,
                    "published_miou": 0.0 if iou >= FITS and not coloured else iou,
                }
                for name, value in numbers.items():
                    values[name].add(value, number, item.case)
            values["picture_success"].add(all_good, number, item.case)
        return known({name: one.micro(rate=name != "published_miou") for name, one in values.items()})


def to_hsv(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return hue 0..180 (half degrees), saturation and value 0..255 of (H, W, 3) sRGB, as OpenCV scales them."""
    rgb = pixels.astype(np.float64)
    value, low = rgb.max(-1), rgb.min(-1)
    spread = value - low
    safe = np.where(spread > 0, spread, 1.0)
    red, green, blue = (rgb[..., k] for k in range(3))
    sector = np.where(
        value == red,
        (green - blue) / safe,
        np.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = np.where(spread > 0, np.rint(sector * 30) % 180, 0)
    saturation = np.rint(255 * spread / np.where(value > 0, value, 1.0))
    return np.stack([hue, saturation, value], -1).astype(np.uint8)


def _fraction(mask: Bools, hsv: npt.NDArray[np.uint8], colour: str) -> float:
    inside = hsv[mask]
    if not len(inside):
        return 0.0
    hits = np.zeros(len(inside), bool)
    for low, high in RANGES[colour]:
        hits |= ((inside >= low) & (inside <= high)).all(-1)
    return float(hits.mean())


def _detections(boxes: Floats, scores: Floats) -> Floats:
    """Keep sure detections, (n, 4), each unless a surer one has all but its box (non-maximum suppression)."""
    kept: list[Floats] = []
    sure = scores[:, 0] if len(scores) else np.zeros(0)
    for index in np.argsort(-sure, kind="stable"):
        if sure[index] < THRESHOLD:
            break
        if not kept or box_iou(boxes[index], np.array(kept)).max() <= SAME:
            kept.append(boxes[index])
    return np.array(kept).reshape(-1, 4)


def _split(phrase: str) -> tuple[str, str]:
    """Return the colour and the class of "a red car" or "red car"."""
    words = phrase.split()
    words = words[1:] if words and words[0] in ("a", "an", "the") else words
    return (words[0], " ".join(words[1:])) if words else ("", "")


def _entries(path: Path) -> list[tuple[str, str, list[tuple[str, Any]]]]:
    """Read name, prompt and (phrase, box) of each scene from either of the benchmark's forms."""
    import yaml  # type: ignore[import-untyped]

    content = read_bounded(path)
    try:
        data = json.loads(content) if path.suffix.lower() == ".json" else yaml.safe_load(content)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: cannot be read ({str(error).splitlines()[0][:80]})") from None
    if not isinstance(data, Mapping) or not data:
        raise SettingsError(f"{path}: is not {MigSuite.reads}")
    found = []
    for key, entry in data.items():
        if not isinstance(entry, Mapping):
            raise SettingsError(f"{path}: {str(key)[:60]!r} has no boxes; expected {MigSuite.reads}")
        if "segment" in entry:
            listed = entry["segment"] if isinstance(entry["segment"], list) else []
            pairs = [(str(one.get("label")), one.get("bbox")) for one in listed if isinstance(one, Mapping)]
            found.append((str(key), str(entry.get("caption", key)), pairs))
        else:
            locations = {phrase: boxes for phrase, boxes in entry.items() if phrase != "coco_id"}
            pairs = [
                (str(p), box)
                for p, boxes in locations.items()
                for box in (boxes if isinstance(boxes, list) else [boxes])
            ]
            found.append((str(entry.get("coco_id", key)), str(key), pairs))
    return found


def _case(path: Path, name: str, prompt: str, locations: Sequence[tuple[str, Any]]) -> Case:
    instances = []
    for phrase, box in locations:
        colour, category = _split(phrase)
        if colour not in RANGES or not category:
            raise SettingsError(f"{path}: {name}: {phrase!r} is no colour and class ({', '.join(RANGES)})")
        if not _is_box(box):
            raise SettingsError(f"{path}: {name}: the box of {phrase!r} is {str(box)[:60]}, not x0, y0, x1, y1 in 0..1")
        instances.append(Instance(phrase, box=Box(*(min(max(float(v), 0.0), 1.0) for v in box))))
    if not instances:
        raise SettingsError(f"{path}: {name}: has no instance")
    scene = Scene(prompt, tuple(instances), SIDE_PX, SIDE_PX)
    return Case(Example(scene, None, f"{name}.png", name), name, f"L{len(instances)}")


def _is_box(box: Any) -> bool:
    numbers = isinstance(box, list) and len(box) == 4 and all(type(v) in (int, float) for v in box)
    return bool(numbers and all(-0.01 <= v <= 1.01 for v in box) and box[0] < box[2] and box[1] < box[3])
