"""Means and rates with 95 % intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 1000
NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class Estimate:
    """A number and how sure it is.

    Attributes:
        value: the mean or rate.
        low: lower end of the 95 % interval.
        high: its upper end.
        count: observations.
    """

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        """Return ".873 [.851, .894]"."""
        return f"{_short(self.value)} [{_short(self.low)}, {_short(self.high)}]"


def estimate(
    values: npt.ArrayLike, pictures: npt.ArrayLike, *, rate: bool = False, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate | None:
    """Estimate the mean of values that come in clusters.

    Objects of one picture share their noise and are not independent, so whole pictures are resampled: a cluster
    bootstrap of the ratio of sums (Efron and Tibshirani 1993, ch. 8), percentile interval. A bootstrap of a rate of 0
    or 1 has no width, so a rate's interval is widened to Wilson's.

    Args:
        values: (n,) numbers; 0 or 1 for a rate.
        pictures: (n,) which picture each is from.
        rate: whether the values are 0 or 1.
        resamples: bootstrap resamples.
        seed: of the bootstrap.

    Returns:
        None if there are no values.
    """
    numbers = np.asarray(values, np.float64)
    if not len(numbers):
        return None
    _, cluster = np.unique(np.asarray(pictures), return_inverse=True)
    sums, sizes = np.bincount(cluster, numbers), np.bincount(cluster).astype(float)
    value = float(numbers.mean())
    low = high = value
    if len(sums) > 1:
        rng = np.random.Generator(np.random.PCG64(seed))
        draws = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=resamples).astype(float)
        low, high = (float(v) for v in np.quantile((draws @ sums) / (draws @ sizes), [0.025, 0.975]))
    if rate:
        wide = wilson(round(float(numbers.sum())), len(numbers))
        low, high = min(low, wide[0]), max(high, wide[1])
    return Estimate(value, low, high, len(numbers))


def wilson(successes: int, count: int, z: float = NORMAL_95) -> tuple[float, float]:
    """Return Wilson's score interval of a rate (Wilson 1927), 95 % by default; (0, 1) of nothing."""
    if count == 0:
        return 0.0, 1.0
    rate, square = successes / count, z * z / count
    middle = (rate + square / 2) / (1 + square)
    half = z * math.sqrt(rate * (1 - rate) / count + square / (4 * count)) / (1 + square)
    low = 0.0 if successes == 0 else middle - half
    return low, 1.0 if successes == count else middle + half


def _short(value: float) -> str:
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0.") else text
