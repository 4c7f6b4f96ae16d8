"""The Frechet distance against its closed form, and the interval against samples drawn anew."""

import numpy as np
import pytest
from PIL import Image

from instancediffusion.errors import SettingsError
from instancediffusion.evaluation.suites import Scored, run_suite
from instancediffusion.evaluation.suites.fid import FrechetSuite

from .conftest import case, models, told


def scored(rows):
    return [Scored(n, str(n), {"features": list(row)}) for n, row in enumerate(rows)]


def normal(rng, count, mean, deviations):
    """Rows whose mean and covariance are exactly those asked for."""
    rows = rng.normal(size=(count, len(mean)))
    rows -= rows.mean(0)
    rows = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T))).T
    return rows * deviations + mean


def test_equals_the_closed_form_of_gaussians():
    rng = np.random.default_rng(0)
    first, second = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 0.5])
    made, real = normal(rng, 60, np.array([0.0, 1, 2]), first), normal(rng, 60, np.array([1.0, 1, 0]), second)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    table, bound = FrechetSuite().compare(scored(made @ turn), scored(real @ turn))
    assert table.scores["frechet"].value == pytest.approx(1 + 4 + ((first - second) ** 2).sum())
    assert bound is None and FrechetSuite().compare(scored(made), scored(made))[0].scores["frechet"].value < 1e-9


def test_the_interval_covers_what_other_samples_give():
    rng = np.random.default_rng(1)
    real = scored(rng.normal(size=(4000, 4)))
    drawn = [FrechetSuite().compare(scored(rng.normal(0.5, 1, (200, 4))), real)[0].scores["frechet"] for _ in range(60)]
    values = np.array([one.value for one in drawn])
    covered = np.mean([one.low <= values.mean() <= one.high for one in drawn])
    assert 0.8 <= covered <= 1 and all(one.low < one.high < one.low + 8 * values.std() for one in drawn)


class MeanColour:
    def __call__(self, image):
        return np.asarray(image, float).mean((0, 1)) / 255

    def describe(self):
        return {"name": "mean colour"}


def test_the_reference_is_the_whole_folder(tmp_path):
    rng = np.random.default_rng(2)
    for name, count in (("made", 3), ("real", 5)):
        (tmp_path / name).mkdir()
        for number in range(count):
            pixels = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{'x' if name == 'made' else 'photo'}{number}.png")
    cases = [case(f"x{number}", told("dog", 0, 0, 9, 9)) for number in range(3)]
    seen = models(features=MeanColour())
    result = run_suite(FrechetSuite(), cases, tmp_path / "made", seen, real=tmp_path / "real")
    assert (result.made.pictures, result.facts["real pictures"]) == (3, 5)
    assert set(result.made.scores) == {"frechet", "halves"}
    with pytest.raises(SettingsError, match="--real"):
        run_suite(FrechetSuite(), cases, tmp_path / "made", seen)
