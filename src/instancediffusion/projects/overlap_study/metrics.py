"""From the numbers of single pictures to those of both orders of a layout, and of many seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from instancediffusion.evaluation.estimates import RESAMPLES, Estimate, estimate
from instancediffusion.evaluation.orders import Row, pair_numbers

from .cells import Cell
from .measures import MEASURES, PAIR_MEASURES


def row_of(cell: Cell, settings: str) -> Row:
    """Say what a picture belongs to: the part of its numbers that nobody has to measure."""
    row: Row = {"cell": cell.key, "section": cell.section, "settings": settings, "seed": cell.seed}
    return row | {"factors": dict(cell.factors), "twins": cell.twins, "front_asked": cell.front}


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
