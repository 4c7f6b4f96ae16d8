"""The metrics of a study: each one's name, title and definition, and how it is averaged over layouts and seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from instancediffusion.evaluation.estimates import RESAMPLES, Estimate, estimate
from instancediffusion.evaluation.orders import Row, pair_numbers

from .cells import Cell


@dataclass(frozen=True)
class Measure:
    """One metric.

    Attributes:
        title: for the report.
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
        "The pair, given by points or strokes, is not overlapping; such a picture shows no order and counts in no "
        "metric of it.",
        True,
        False,
    ),
    "blend": Measure(
        "blend index",
        "Fraction of the overlap that does not show the object in front: it looks like neither of the two, or "
        "like the other one.",
        upwards=False,
    ),
    "visible_iou": Measure(
        "visible-mask IoU",
        "Of what should be visible of the pair and the pixels that show it, given by boxes or masks; 0 if missed.",
    ),
    "hidden_complete": Measure(
        "hidden one complete", "Fraction of what should be visible of the farther object that shows it."
    ),
    "class": Measure("class of all", "Fraction of the instances that are there and of the class asked for."),
    "colour": Measure("colour of all", "Fraction of those with a given colour that are there and have it."),
    "box_iou": Measure("box IoU", "Of the box of the whole object and the detected one; 0 if missed."),
    "mask_iou": Measure(
        "mask IoU", "Of what should be visible of an instance and what is detected of it; 0 if missed."
    ),
    "clean": Measure(
        "clean instances",
        "Fraction of the instances that are there as asked: location, class, colour, orientation.",
    ),
    "missed": Measure("missed", "Fraction of the instances that no detection stands for.", upwards=False),
    "merged": Measure(
        "merged",
        "Fraction that is missed where a detection that stands for another covers its location.",
        upwards=False,
    ),
    "stroke": Measure("stroke owned", "Fraction of the first target's stroke that lies on it."),
    "facing": Measure("facing", "The first target has the orientation asked for; found ones only.", True),
    "doubled": Measure("doubled", "More than one object of the first target's class is detected.", True, False),
}
"""Of each picture, by name."""

PAIR_MEASURES: dict[str, Measure] = {
    "pair_right": Measure("pair accuracy", "Both orders of a layout come out as asked.", True),
    "flipped": Measure("flip rate", "Another object is in front when the order is reversed.", True),
    "prior": Measure(
        "prior bias",
        "Fraction in which the first object is in front, over both orders, less a half; 0 is unbiased.",
        upwards=None,
    ),
    "prior_lower": Measure("bias to the lower", "The same for the object that stands lower.", upwards=None),
    "prior_larger": Measure("bias to the larger", "The same for the larger object.", upwards=None),
}
"""Of each layout with both of its orders."""

SPREADS: dict[str, Measure] = {
    "place_spread": Measure(
        "spread of place",
        "Root mean square distance of the object's middle from its mean, in fractions of the canvas.",
        upwards=None,
    ),
    "size_spread": Measure(
        "spread of size", "Standard deviation of the side of its box's square, divided by its mean.", upwards=None
    ),
}
"""Of many seeds of one scene."""

ALL = {**PAIR_MEASURES, **MEASURES, **SPREADS}


def row_of(cell: Cell, settings: str) -> Row:
    """Return what a picture belongs to: the part of its row that needs no evaluator."""
    row: Row = {"cell": cell.key, "section": cell.section, "settings": settings, "seed": cell.seed}
    return row | {"factors": dict(cell.factors), "twins": cell.twins, "front_asked": cell.front}


def summary(rows: Sequence[Row]) -> dict[str, Estimate]:
    """Return every metric these rows have, with its 95 % interval; whole layouts are resampled."""
    found: dict[str, Estimate] = {}
    for name, one in MEASURES.items():
        values = [(row[name], row["twins"] or row["cell"]) for row in rows if row.get(name) is not None]
        result = estimate([v for v, _ in values], [c for _, c in values], rate=one.rate) if values else None
        found |= {name: result} if result else {}
    return found | pair_summary(rows)


def pair_summary(rows: Iterable[Row]) -> dict[str, Estimate]:
    """Return the metrics of layouts that are there in both orders; see `study_metrics.PAIR_MEASURES`."""
    twins: dict[str, list[Row]] = {}
    for row in rows:
        if row["twins"] is not None and row.get("front_asked") is not None:
            twins.setdefault(row["twins"], []).append(row)
    values: dict[str, list[float]] = {name: [] for name in PAIR_MEASURES}
    for both in twins.values():
        for name, value in (pair_numbers(both) or {}).items():
            values[name].append(value)
    found = {n: estimate(v, range(len(v)), rate=PAIR_MEASURES[n].rate) for n, v in values.items()}
    return {name: value for name, value in found.items() if value is not None}


def spread(rows: Sequence[Mapping[str, Any]], resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Estimate]:
    """Return how far an object's location and size scatter over the seeds of one scene; see `study_metrics.SPREADS`.

    Args:
        rows: pictures of one scene; those that miss the object do not count. Fewer than two give nothing.
        resamples: bootstrap resamples of whole pictures.
        seed: of the bootstrap.
    """
    extents = np.array([(r["x"], r["y"], r["side"]) for r in rows if r.get("x") is not None], np.float64).reshape(-1, 3)
    if len(extents) < 2:
        return {}
    rng = np.random.Generator(np.random.PCG64(seed))
    draws = np.array([_spreads(extents[rng.integers(len(extents), size=len(extents))]) for _ in range(resamples)])
    found = {}
    for number, (name, value) in enumerate(zip(("place_spread", "size_spread"), _spreads(extents), strict=True)):
        low, high = (float(v) for v in np.quantile(draws[:, number], [0.025, 0.975]))
        found[name] = Estimate(value, min(low, value), max(high, value), len(extents))
    return found


def _spreads(extents: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float]:
    location = float(np.sqrt(extents[:, :2].var(0).sum()))
    return location, float(extents[:, 2].std() / max(extents[:, 2].mean(), 1e-9))
