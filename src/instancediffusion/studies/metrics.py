"""From what a judge sees to numbers: of one picture, of both orders of a layout, of many seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from instancediffusion.evaluation.drawings import (
    LEAST_SHARE,
    Bools,
    Drawings,
    DrawingsJudge,
    shown,
    shown_iou,
    shown_share,
)
from instancediffusion.evaluation.estimates import RESAMPLES, Estimate, estimate
from instancediffusion.evaluation.matching import match, share_inside
from instancediffusion.evaluation.orders import Row, in_front, lower_and_larger, overlap_of, pair_numbers
from instancediffusion.evaluation.scores import score_picture
from instancediffusion.evaluation.seen import Seen, resized
from instancediffusion.evaluation.truth import TrueInstance

from .cells import Cell
from .fitting import fitted_places
from .measures import MEASURES, PAIR_MEASURES


def measure(cell: Cell, image: Image.Image, seen: Seen | None, finder: DrawingsJudge, settings: str) -> Row:
    """Measure a picture of a cell.

    Args:
        cell: what was asked for.
        image: the picture.
        seen: what a judge sees in it; None leaves out what takes a judge: places, missed and clean instances.
        finder: knows the drawings of the world's objects.
        settings: the name of what drew it.
    """
    row = row_of(cell, settings)
    if seen is not None:
        scores, _ = score_picture(seen, cell.truth)
        pairs = match(seen, cell.truth).pairs
        targets = cell.targets or tuple(range(len(scores)))
        for name, field in (("clean", "as_asked"), ("missed", "missed"), ("merged", "merged")):
            row[name] = float(np.mean([getattr(scores[t], field) for t in targets]))
        row |= of_target(seen, cell.truth.instances[targets[0]], pairs[targets[0]])
    return row | _order(cell, image, finder) | _visible(cell, image, finder.drawings)


def row_of(cell: Cell, settings: str) -> Row:
    """Say what a picture belongs to: the part of its numbers that nobody has to measure."""
    row: Row = {"cell": cell.key, "section": cell.section, "settings": settings, "seed": cell.seed}
    return row | {"factors": dict(cell.factors), "twins": cell.twins, "front_asked": cell.front}


def of_target(seen: Seen, wanted: TrueInstance, index: int | None) -> Row:
    """Side, stroke and place of one instance; `index` is its detection, None where it was not found."""
    same = [item for item in seen.instances if item.name == wanted.name]
    row: Row = {"doubled": float(len(same) > 1) if wanted.name is not None else None}
    row["stroke"] = row["facing"] = row["x"] = row["y"] = row["side"] = None
    if wanted.scribble is not None:
        row["stroke"] = 0.0 if index is None else share_inside(seen.mask(index), wanted.scribble)
    if index is None:
        return row
    found = seen.instances[index]
    if wanted.facing is not None and found.facing is not None:
        row["facing"] = float(found.facing == wanted.facing)
    x0, y0, x1, y1 = (float(v) for v in found.box)
    return row | {"x": (x0 + x1) / 2, "y": (y0 + y1) / 2, "side": max((x1 - x0) * (y1 - y0), 0.0) ** 0.5}


def _order(cell: Cell, image: Image.Image, finder: DrawingsJudge) -> Row:
    """Who of the pair is in front, and the blend index."""
    if cell.pair is None:
        return {}
    wanted = [cell.truth.instances[k] for k in cell.pair]
    row = lower_and_larger(wanted[0], wanted[1])
    told = [bool({"box", "mask"} & set(item.told)) for item in wanted]
    places = (wanted[0].box, wanted[1].box) if all(told) else fitted_places(image, cell.truth, cell.pair, finder)
    if places is None or places[0] is None or places[1] is None:
        return row
    drawn = [
        finder.drawings.place(item, place, (image.height, image.width))
        for item, place in zip(wanted, places, strict=True)
        if place is not None
    ]
    if drawn[0] is None or drawn[1] is None:
        return row
    overlap = overlap_of(image, drawn[0], drawn[1])
    if not all(told):
        row["apart"] = float((drawn[0].inside & drawn[1].inside).mean() < LEAST_SHARE)
    # Where they share nothing, or look alike in what they share, nobody could tell.
    return row if overlap is None else row | in_front(cell.front, overlap)


def _visible(cell: Cell, image: Image.Image, drawings: Drawings) -> Row:
    """How much of what is to be seen of the pair is seen, where boxes or masks say where all objects are."""
    if cell.pair is None or cell.front is None:
        return {}
    wanted = cell.truth.instances
    if not all({"box", "mask"} & set(item.told) for item in wanted):
        return {}
    size = (image.height, image.width)
    drawn = [drawings.place(item, item.box, size) if item.box is not None else None for item in wanted]
    there = [one for one in drawn if one is not None]
    if len(there) < len(drawn):
        return {}
    labels = shown(image, there)
    visible = {index: _resized(wanted[index].visible, size) for index in cell.pair}
    ious = [shown_iou(labels, index, mask) if mask is not None else None for index, mask in visible.items()]
    row: Row = {"visible_iou": float(np.mean(known))} if (known := [v for v in ious if v is not None]) else {}
    far = cell.pair[1 - cell.front]
    if (mask := visible[far]) is not None:
        row["hidden_complete"] = shown_share(labels, far, mask)
    return row


def _resized(mask: Bools | None, size: tuple[int, int]) -> Bools | None:
    return None if mask is None else resized(mask.astype(np.uint8), size) > 0


def summary(rows: Sequence[Row]) -> dict[str, Estimate]:
    """Return every measure these rows have, with its 95 % interval; whole layouts are resampled."""
    found: dict[str, Estimate] = {}
    for name, one in MEASURES.items():
        values = [(row[name], row["twins"] or row["cell"]) for row in rows if row.get(name) is not None]
        result = estimate([v for v, _ in values], [c for _, c in values], rate=one.rate) if values else None
        found |= {name: result} if result else {}
    return found | pair_summary(rows)


def pair_summary(rows: Iterable[Row]) -> dict[str, Estimate]:
    """Return the measures of layouts that are there in both orders; see `measures.PAIR_MEASURES`."""
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
    """Say how far an object's place and size scatter over the seeds of one scene; see `measures.SPREADS`.

    Args:
        rows: pictures of one scene; those that miss the object do not count. Fewer than two give nothing.
        resamples: bootstrap resamples of whole pictures.
        seed: of the bootstrap.
    """
    told = np.array([(r["x"], r["y"], r["side"]) for r in rows if r.get("x") is not None], np.float64).reshape(-1, 3)
    if len(told) < 2:
        return {}
    rng = np.random.Generator(np.random.PCG64(seed))
    draws = np.array([_spreads(told[rng.integers(len(told), size=len(told))]) for _ in range(resamples)])
    found = {}
    for number, (name, value) in enumerate(zip(("place_spread", "size_spread"), _spreads(told), strict=True)):
        low, high = (float(v) for v in np.quantile(draws[:, number], [0.025, 0.975]))
        found[name] = Estimate(value, min(low, value), max(high, value), len(told))
    return found


def _spreads(told: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float]:
    place = float(np.sqrt(told[:, :2].var(0).sum()))
    return place, float(told[:, 2].std() / max(told[:, 2].mean(), 1e-9))
