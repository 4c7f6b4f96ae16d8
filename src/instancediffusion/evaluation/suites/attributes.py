"""`attributes`: do instances have the colour or texture of their caption? As published and repaired.

The paper (section 4, Table 4) gives each instance one of eight colours or textures and asks CLIP which of the eight a
crop of the picture shows. Its script crops the *given* boxes, whatever is there, leaves out crops that fail, and
averages over the instances of a picture, then over pictures. The repaired metric crops what a detector found of the
class in the given location, counts what it did not find as wrong, and weights all instances alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from instancediffusion.errors import SettingsError
from instancediffusion.geometry import box_iou

from ..assignment import assign
from ..report import ScoreTable
from ..truth import stated_box
from .categories import label_of, plain
from .models import Detection, Floats, Models
from .suite import Case, Measure, NotScoredError, Published, Row, Scored, Suite, Values, known, register

COLOURS = ("black", "white", "red", "green", "yellow", "blue", "pink", "purple")
TEXTURES = ("rubber", "fluffy", "metallic", "wooden", "plastic", "fabric", "leather", "glass")
ATTRIBUTES: Mapping[str, Sequence[str]] = {"colour": COLOURS, "texture": TEXTURES}

SURE = 0.25
"""Confidence from which a detection counts."""

FOUND = 0.5
"""IoU of the given box and the detected one from which the instance is found."""


def _measures() -> dict[str, Measure]:
    found: dict[str, Measure] = {}
    for kind in ATTRIBUTES:
        found |= {
            f"{kind}": Measure(
                f"{kind} accuracy",
                f"A detection of its class has the given location (IoU from {FOUND}) and, to CLIP, the given {kind}; "
                "over all instances.",
            ),
            f"{kind}_found": Measure(f"{kind} of found ones", "The same among the instances that were found."),
            f"published_{kind}": Measure(
                f"{kind} accuracy, as published",
                f"To CLIP the crop of the given box has the given {kind} out of eight; mean over pictures.",
                published=True,
            ),
            f"published_{kind}_clip": Measure(
                f"{kind} CLIP score, as published",
                f'Cosine of the crop of the given box and "{kind} category"; mean over pictures.',
                published=True,
            ),
        }
    return found


@register
class AttributesSuite(Suite):
    """Attribute binding."""

    name = "attributes"
    title = "Attributes: colour and texture of instances"
    needs = ("detector", "clip")
    measures: ClassVar[Mapping[str, Measure]] = _measures()
    published = (
        Published(
            "InstanceDiffusion",
            "paper, OpenCLIP ViT-L/14",
            {
                "published_colour": 0.544,
                "published_colour_clip": 0.250,
                "published_texture": 0.268,
                "published_texture_clip": 0.225,
            },
        ),
    )

    def prepare(self, cases: Sequence[Case], models: Models, path: Path | None) -> None:  # noqa: ARG002
        """Check that there is something to score.

        Raises:
            SettingsError: no caption names an attribute.
        """
        if not any(attribute_of(one.caption) for case in cases for one in case.example.scene.instances):
            raise SettingsError(
                "attributes: no caption begins with a colour or texture; write captions such as 'red car'. Colours are "
                f"{', '.join(COLOURS)}; textures {', '.join(TEXTURES)}"
            )

    def score(self, case: Case, image: Image.Image, models: Models) -> Row:
        """Ask CLIP of the given boxes and of the detected ones."""
        given = []
        for index, one in enumerate(case.example.scene.instances):
            attribute, box = attribute_of(one.caption), stated_box(one)
            if attribute is not None and box is not None:
                category = case.example.category(index)
                given.append((attribute, _without(category, attribute[1]), box))
        if not given:
            raise NotScoredError("no instance with a box, mask or scribble has a colour or texture in its caption")
        found = [one for one in models.detector(image, case.name) if one.score >= SURE]
        partners = _partners(given, found, models.detector.labels)
        row: Row = {"instances": []}
        for number, ((kind, word), category, box) in enumerate(given):
            texts = [f"a {other} object" for other in ATTRIBUTES[kind]] + [f"{word} {category}"]
            crops = [_crop(image, box)]
            partner = partners.get(number)
            if partner is not None:
                crops.append(_crop(image, partner.box))
            close = models.clip.similarities(crops, texts)
            named = [ATTRIBUTES[kind][int(line[:-1].argmax())] for line in close]
            row["instances"].append(
                {
                    "kind": kind,
                    "published": float(named[0] == word),
                    "clip": float(close[0, -1]),
                    "found": partner is not None,
                    "right": float(partner is not None and named[-1] == word),
                }
            )
        return row

    def aggregate(self, scored: Sequence[Scored]) -> ScoreTable:
        """Repaired: over instances. As published: over pictures, of each picture's mean."""
        values = {name: Values() for name in self.measures}
        for number, item in enumerate(scored):
            for one in item.row["instances"]:
                kind = one["kind"]
                values[kind].add(one["right"], number, item.case)
                values[f"{kind}_found"].add(one["right"] if one["found"] else None, number, item.case)
                values[f"published_{kind}"].add(one["published"], number, item.case)
                values[f"published_{kind}_clip"].add(one["clip"], number, item.case)
        scores = {
            name: one.macro() if self.measures[name].published else one.micro(rate=True) for name, one in values.items()
        }
        return ScoreTable(len(scored), known(scores))

    def badness(self, row: Row) -> float:
        """Fraction of wrong instances."""
        return 1.0 - float(np.mean([one["right"] for one in row["instances"]]))


def attribute_of(caption: str) -> tuple[str, str] | None:
    """Return the kind and the word of the attribute that a caption begins with, an article aside, or None."""
    words = plain(caption).split()
    while words and words[0] in ("a", "an", "the"):
        words = words[1:]
    first = words[0] if len(words) > 1 else ""
    return next(((kind, first) for kind, known_words in ATTRIBUTES.items() if first in known_words), None)


def _without(category: str, word: str) -> str:
    words = category.split()
    return " ".join(words[1:]) if len(words) > 1 and words[0].casefold() == word else category


def _partners(
    given: Sequence[tuple[tuple[str, str], str, Floats]], found: Sequence[Detection], labels: Sequence[str]
) -> dict[int, Detection]:
    """Pair given instances with detections of their class that have their location, one to one."""
    if not found:
        return {}
    gain = np.zeros((len(given), len(found)))
    for index, (_, category, box) in enumerate(given):
        label = label_of(category, labels)
        for number, one in enumerate(found):
            overlap = float(box_iou(box, one.box)[0, 0]) if one.label == label else 0.0
            gain[index, number] = overlap if overlap >= FOUND else 0.0
    return {index: found[number] for index, number in assign(gain) if gain[index, number] > 0}


def _crop(image: Image.Image, box: Floats) -> Image.Image:
    x0, y0 = int(np.floor(box[0] * image.width)), int(np.floor(box[1] * image.height))
    x1, y1 = int(np.ceil(box[2] * image.width)), int(np.ceil(box[3] * image.height))
    x0, y0 = min(x0, image.width - 1), min(y0, image.height - 1)
    return image.crop((x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)))
