"""Assignment, intervals and the Frechet distance against independent libraries and known answers."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest

from instancediffusion.evaluation import FeatureStatistics, assign, estimate, frechet_distance, wilson


@pytest.mark.parametrize("seed", range(40))
def test_assignment_is_the_best_one(seed):
    rng = np.random.default_rng(seed)
    gain = rng.normal(size=rng.integers(1, 9, 2)).round(rng.integers(0, 3))  # rounded: ties
    pairs = assign(gain)
    assert len(pairs) == min(gain.shape) and pairs == sorted(pairs)
    assert all(len(set(side)) == len(side) for side in zip(*pairs, strict=True))
    assert sum(gain[pair] for pair in pairs) == pytest.approx(
        gain[linear_sum_assignment(gain, maximize=True)].sum(), abs=1e-9
    )


def test_nothing_is_assigned_to_nothing():
    assert assign(np.zeros((0, 3))) == [] and assign(np.zeros((3, 0))) == []
    with pytest.raises(ValueError, match="finite"):
        assign([[np.nan]])


@pytest.mark.parametrize(("successes", "count"), [(0, 5), (5, 5), (1, 7), (480, 500), (250, 500)])
def test_wilson_is_wilsons(successes, count):
    known = binomtest(successes, count).proportion_ci(method="wilson")
    assert wilson(successes, count) == pytest.approx((known.low, known.high), abs=1e-9)


def test_interval_of_independent_values_is_that_of_the_normal_law():
    rng = np.random.default_rng(0)
    values = rng.normal(size=800)
    found = estimate(values, np.arange(800))
    half = 1.96 * values.std() / np.sqrt(800)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)
    assert found.count == 800


def test_values_of_one_picture_count_as_one():
    rng = np.random.default_rng(1)
    values = rng.normal(size=100)
    single = estimate(values, np.arange(100))
    repeated = estimate(np.repeat(values, 5), np.repeat(np.arange(100), 5))
    assert (repeated.low, repeated.high) == pytest.approx((single.low, single.high))
    assert repeated.count == 500


def test_intervals_hold_what_they_promise():
    held = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        share = rng.beta(6, 2, 60)  # mean .75; the three objects of a picture go together
        values = rng.random((60, 3)) < share[:, None]
        found = estimate(values.ravel(), np.repeat(np.arange(60), 3), rate=True, seed=seed)
        held += found.low <= 0.75 <= found.high
    assert 0.9 <= held / 200 <= 0.99


def test_certain_rates_keep_a_width_and_nothing_has_no_estimate():
    found = estimate(np.ones(50), np.arange(50), rate=True)
    assert found.value == found.high == 1 and 0.9 < found.low < 0.95
    assert estimate([], []) is None


def test_frechet_distance_is_the_formula():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6)), rng.normal(1, 2, size=(200, 6))
    a, b = FeatureStatistics(6), FeatureStatistics(6)
    for part in np.array_split(first, 7):
        a.update(part)
    for row in second:
        b.update(row)
    c1, c2 = np.cov(first.T), np.cov(second.T)
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real)
    assert frechet_distance(a, b) == pytest.approx(expected) == frechet_distance(b, a)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    moved = FeatureStatistics(6)
    moved.update(first + 3)
    assert frechet_distance(a, moved) == pytest.approx(6 * 9)
    with pytest.raises(ValueError, match="two rows"):
        FeatureStatistics(2).compute()
