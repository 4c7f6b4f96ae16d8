"""What is measured: each number's name, title and definition. No torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """One number.

    Attributes:
        title: for people.
        definition: in a sentence.
        rate: whether it is 0 or 1 in each picture (or pair).
        upwards: whether more is better; None where neither is.
    """

    title: str
    definition: str
    rate: bool = False
    upwards: bool | None = True


MEASURES: dict[str, Measure] = {
    "right": Measure(
        "order accuracy",
        "The object asked to be in front owns more of the overlap, by .1 (`evaluation.orders`); a missed one is wrong.",
        True,
    ),
    "first_front": Measure(
        "first in front",
        "The first of the pair is in front; pictures that do not decide count as a half.",
        upwards=None,
    ),
    "apart": Measure(
        "apart",
        "The pair, told by points or strokes, is drawn without an overlap; such a picture shows no order and counts "
        "in no number of it.",
        True,
        False,
    ),
    "blend": Measure(
        "blend index",
        "Share of the overlap that does not show the object in front: it looks like neither of the two, or "
        "like the other one.",
        upwards=False,
    ),
    "visible_iou": Measure(
        "visible-mask IoU",
        "Of what should be visible of the pair and the pixels that show it, told by boxes or masks; 0 if missed.",
    ),
    "hidden_complete": Measure(
        "hidden one complete", "Share of what should be visible of the farther object that shows it."
    ),
    "class": Measure("class of all", "Share of the instances that are there and of the class asked for."),
    "colour": Measure("colour of all", "Share of those told a colour that are there and have it."),
    "box_iou": Measure("box IoU", "Of the box of the whole object and the one that is seen; 0 if missed."),
    "mask_iou": Measure("mask IoU", "Of what should be visible of an instance and what is seen of it; 0 if missed."),
    "clean": Measure("clean instances", "Share of the instances that are there as asked: place, class, colour, side."),
    "missed": Measure("missed", "Share of the instances that nothing stands for.", upwards=False),
    "merged": Measure(
        "merged", "Share that is missed where an object that stands for another covers its place.", upwards=False
    ),
    "stroke": Measure("stroke owned", "Share of the first target's stroke that lies on it."),
    "facing": Measure("facing", "The first target looks to the side asked for; found ones only.", True),
    "doubled": Measure("doubled", "More than one object of the first target's class is seen.", True, False),
}
"""Of each picture, by name."""

PAIR_MEASURES: dict[str, Measure] = {
    "pair_right": Measure("pair accuracy", "Both orders of a layout come out as asked.", True),
    "flipped": Measure("flip rate", "Another object is in front when the order is turned round.", True),
    "prior": Measure(
        "prior bias",
        "Share in which the first object is in front, over both orders, less a half; 0 is unbiased.",
        upwards=None,
    ),
    "prior_lower": Measure("bias to the lower", "The same for the object that stands lower.", upwards=None),
    "prior_larger": Measure("bias to the larger", "The same for the larger object.", upwards=None),
}
"""Of each layout with both of its orders."""

SPREADS: dict[str, Measure] = {
    "place_spread": Measure(
        "spread of place",
        "Root mean square distance of the object's middle from its mean, in shares of the canvas.",
        upwards=None,
    ),
    "size_spread": Measure(
        "spread of size", "Standard deviation of the side of its box's square, divided by its mean.", upwards=None
    ),
}
"""Of many seeds of one scene."""

ALL = {**PAIR_MEASURES, **MEASURES, **SPREADS}
